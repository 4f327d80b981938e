"""Runs a sweep on Ray (extra `[ray]`): the same jobs and files, on machines of a cluster that share a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .grid import Grid
from .jobs import Job
from .local import PAUSE, OnAnswer

if TYPE_CHECKING:
    from .work import JobCells


@dataclass(frozen=True)
class OnRay:
    """A cluster, and what each job takes of it."""

    address: str
    """ "auto" for the cluster that this machine belongs to, else "HOST:PORT"; "local" starts Ray here."""
    gpus: float = 0.0
    """The share of a GPU that each job takes: with 0.5 two jobs share one."""
    cpus: float = 1.0
    """The number of cores that each job takes."""
    retries: int = 3
    """How often a job is tried again whose machine is lost, such as a spot instance."""

    def make_task(self, function: Callable[..., Any]) -> Any:
        """A function as a task of the cluster, to which this connects.

        Raises:
            ImportError: Ray is not installed.
            ConnectionError: there is no cluster at the address.
        """
        try:
            import ray
        except ImportError as error:
            raise ImportError('a sweep on Ray needs the extra: pip install "efface[ray]"') from error
        if not ray.is_initialized():
            ray.init(address=self.address, log_to_driver=False)
        return ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries, max_calls=0)(function)


def plan_on_ray(grid: Grid, device: str | None, cluster: OnRay) -> list[tuple[Job, JobCells]]:
    """Lists each job with its cells as the cluster's workers name them.

    The names depend on the base's weights, which are opened in another dtype on a GPU than on a CPU, and the machine
    that starts a sweep may well have no GPU.

    Raises:
        ValueError, OSError: as `sweeping.plan`.
        ImportError, ConnectionError: as `OnRay.make_task`.
    """
    task = cluster.make_task(_plan)
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(task.remote(grid.model_dump_json(), device, str(Path.cwd())))
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, ValueError | OSError) else error) from error


def run_ray(
    grid: Grid,
    jobs: Sequence[Job],
    folder: Path,
    threads: int,
    device: str | None,
    cluster: OnRay,
    tell: OnAnswer,
) -> None:
    """Does all jobs as Ray tasks; one on whose edit another process works is tried again later.

    An exception, such as a keyboard interrupt, cancels the tasks that are left.

    Raises:
        ImportError, ConnectionError: as `OnRay.make_task`.
    """
    task = cluster.make_task(_do)
    import ray
    from ray.exceptions import RayError

    payload, here = ray.put(grid.model_dump_json()), str(Path.cwd())

    def begin(job: Job) -> Any:
        return task.remote(payload, json.dumps(dataclasses.asdict(job)), str(folder), threads, device, here)

    waiting = {begin(job): job for job in jobs}
    try:
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1)
            for reference in ready:
                job = waiting.pop(reference)
                try:
                    answer = ray.get(reference)
                except RayError as error:
                    answer = {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
                if "busy" in answer:
                    time.sleep(PAUSE)
                    waiting[begin(job)] = job
                else:
                    tell(job, answer)
    except BaseException:
        for reference in waiting:
            ray.cancel(reference, force=True)
        raise


def _plan(grid: str, device: str | None, here: str) -> list[tuple[Job, JobCells]]:
    """Plans a grid in a Ray worker."""
    from .sweeping import plan

    _go(here)
    return plan(Grid.model_validate_json(grid), device)


def _do(grid: str, job: str, folder: str, threads: int, device: str | None, here: str) -> dict:
    """Does one job in a Ray worker, which keeps its last model for the next job."""
    import torch

    from .cells import Store
    from .worker import read_job, run

    _go(here)
    torch.set_num_threads(threads)
    return run(Grid.model_validate_json(grid), read_job(job), Store(Path(folder)), device)


def _go(here: str) -> None:
    """Works in the directory of the command, where the grid's relative paths begin, if this machine has it."""
    with contextlib.suppress(OSError):
        os.chdir(here)
