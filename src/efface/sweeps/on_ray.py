"""Runs a sweep on Ray (extra `[ray]`): the same jobs and files, on machines of a cluster that share a folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from .grid import Grid
from .jobs import Job
from .local import OnAnswer


def run_ray(
    grid: Grid,
    jobs: Sequence[Job],
    folder: Path,
    address: str,
    gpus: float,
    cpus: float,
    threads: int,
    device: str | None,
    retries: int,
    tell: OnAnswer,
) -> None:
    """Does all jobs as Ray tasks.

    Args:
        address: "auto" for the cluster that this machine belongs to, else "HOST:PORT"; "local" starts Ray here.
        gpus: the share of a GPU that each job takes: with 0.5 two jobs share one.
        cpus: the number of cores that each job takes.
        retries: how often a job is tried again whose machine is lost, such as a spot instance.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise ImportError('a sweep on Ray needs the extra: pip install "efface[ray]"') from error
    if not ray.is_initialized():
        ray.init(address=None if address == "local" else address, log_to_driver=False)
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=retries, max_calls=0)(_do)
    payload = grid.model_dump_json()
    waiting = {
        task.remote(payload, json.dumps(dataclasses.asdict(job)), str(folder), threads, device): job for job in jobs
    }
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1)
        for reference in ready:
            job = waiting.pop(reference)
            try:
                tell(job, ray.get(reference))
            except RayError as error:
                tell(job, {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"})


def _do(grid: str, job: str, folder: str, threads: int, device: str | None) -> dict:
    """Does one job in a Ray worker, which keeps its last model for the next job."""
    import torch

    from .cells import Store
    from .worker import read_job, run

    torch.set_num_threads(threads)
    return run(Grid.model_validate_json(grid), read_job(job), Store(Path(folder)), device)
