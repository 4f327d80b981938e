"""`efface.sweep`: runs a grid, here or on Ray, and gathers its table."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..api.case import to_tuple
from ..catalog import did_you_mean
from ..files import check_file, check_folder, write_whole
from .cells import Store

if TYPE_CHECKING:
    from .grid import Grid
    from .jobs import Job
    from .local import Answer
    from .work import JobCells

TABLE = "table.csv"
PAGE = "page.md"


@dataclass(frozen=True)
class Summary:
    """The result of a run of a sweep."""

    jobs: int
    cells: int
    done: int
    """Number of finished cells, including those of earlier runs."""
    new: int
    """Number of cells that this run finished."""
    failed: tuple[tuple[str, str], ...]
    """Each failed job's name, and the reason."""
    table: Path
    page: Path


def sweep(
    grid: Grid | str | Path,
    out: str | Path,
    *,
    fraction: float | None = None,
    concepts: str | Sequence[str] = (),
    methods: str | Sequence[str] = (),
    seeds: int | Sequence[int] = (),
    page: str | Path = "",
    workers: int = 1,
    threads: int = 1,
    device: str | None = None,
    ray: str = "",
    gpus: float = 0.0,
    cpus: float = 1.0,
    retries: int = 3,
    on_answer: Callable[[Job, Answer, int, int], None] | None = None,
    command: str = "",
) -> Summary:
    """Does all cells of a grid that have no result yet, and writes `out`/table.csv and `out`/page.md.

    The run can be stopped or killed at any moment: finished cells are files, and the same call continues. A cell that
    fails does not stop the others; its log is in `out`/failed, and the next run tries it again.

    Args:
        grid: a grid, or its TOML file.
        out: the folder of the sweep; workers on other machines must share it.
        fraction: the share of each group's pictures to draw, instead of the grid's own.
        concepts, methods, seeds: run only the grid's jobs of these concepts, methods or variants, and training seeds;
            the table and the page have all finished cells.
        page: a file to which the page is also written.
        workers: number of processes on this machine; each opens the model for itself.
        threads: number of torch's threads in each worker. The last bits of results may depend on it.
        device: the device of the models; by default a GPU where there is one.
        ray: "" for processes here; "auto", "local" or HOST:PORT for Ray.
        gpus, cpus: the GPUs and cores that each job takes, on Ray.
        retries: how often Ray tries a job again whose machine is lost.
        on_answer: called with a job, its answer, the number of jobs answered so far, and the number of jobs.
        command: the command that makes the page again, which the page shows.

    Returns:
        The numbers of jobs, of finished cells and of those that this run finished, the failed jobs with their reasons,
        and the files of the table and the page.

    Raises:
        OSError: the grid is missing, or `out` can't be written in.
        ValueError: a grid, method, setting, request, suite or scorer that can't work, or a part that the grid does not
            have; before anything is fitted.
        ImportError: Ray is asked for and not installed.

    Example:
        >>> summary = efface.sweep("grid.toml", "out/grid", workers=2)  # doctest: +SKIP
    """
    if workers < 1 or threads < 1:
        raise ValueError(f"workers and threads must be at least 1, got {workers} and {threads}")
    from .checking import check_measuring
    from .grid import check_again, read_grid
    from .on_ray import OnRay, plan_on_ray, run_ray

    if not command and isinstance(grid, str | Path):
        share = [] if fraction is None else ["--fraction", str(fraction)]
        command = shlex.join(["efface", "sweep", str(grid), *share, "--out", str(out)])
    grid = read_grid(grid, fraction) if isinstance(grid, str | Path) else check_again(grid, fraction)
    store = Store(check_folder(out))
    further = [check_file(page)] if page else []
    cluster = OnRay(ray, gpus, cpus, retries) if ray else None
    planned = plan_on_ray(grid, device, cluster) if cluster else plan(grid, device)
    jobs = [job for job, _ in planned]
    part = {job.compute_key() for job in choose_part(jobs, to_tuple(concepts), to_tuple(methods), to_tuple(seeds))}
    open_jobs = [
        job for job, cells in planned if job.compute_key() in part and not all(store.is_done(cell) for cell in cells)
    ]
    check_measuring(grid, open_jobs, device)
    store.folder.mkdir(parents=True, exist_ok=True)
    new: list[str] = []
    failed: dict[str, str] = {}

    def tell(job: Job, answer: Answer) -> None:
        new.extend(answer.get("done", ()))
        if "error" in answer:
            failed[job.name] = answer["error"]
            if not store.locate_log(key := job.compute_key()).is_file():  # its process or machine was lost
                store.write_log(key, job.name, answer["error"])
        answered.append(job)
        if on_answer:
            on_answer(job, answer, len(answered), len(open_jobs))

    answered: list[Job] = []
    if cluster and open_jobs:
        run_ray(grid, open_jobs, store.folder.resolve(), threads, device, cluster, tell)
    elif open_jobs:
        from .local import run_local

        run_local(grid, open_jobs, store.folder, workers, threads, device, tell)
    return finish(grid, planned, store, len(new), failed, command or "efface.sweep", further)


def choose_part(
    jobs: Sequence[Job], concepts: Sequence[str], methods: Sequence[str], seeds: Sequence[int]
) -> Sequence[Job]:
    """The jobs of these concepts, methods or variants, and seeds; an empty argument chooses all.

    Raises:
        ValueError: the grid has no such concept, method or seed; the message says which it has.
    """
    part = jobs
    for what, wanted, name in (("concept", concepts, "concept"), ("method", methods, "label"), ("seed", seeds, "seed")):
        known = dict.fromkeys(getattr(job, name) for job in jobs)
        if stray := [each for each in wanted if each not in known]:
            raise ValueError(f"the grid has no {what} {stray[0]!r}; it has {', '.join(map(str, known))}")
        part = [job for job in part if not wanted or getattr(job, name) in wanted]
    return part


def plan(grid: Grid, device: str | None) -> list[tuple[Job, JobCells]]:
    """Lists each job with its cells, and opens every model once.

    Raises:
        ValueError: a method, setting or request can't work; the message names the job.
    """
    from .jobs import expand
    from .work import list_cells, open_model

    found = []
    for job in expand(grid):
        try:
            found.append((job, list_cells(grid, job, open_model(job.model, device)).reduce_to_names()))
        except ValueError as error:
            raise ValueError(f"{job.name}: {error}") from error
    return found


def finish(
    grid: Grid,
    planned: Sequence[tuple[Job, JobCells]],
    store: Store,
    new: int,
    failed: dict[str, str],
    command: str,
    further: Sequence[Path] = (),
) -> Summary:
    """Writes the table and the page, the page also to further files, and returns the summary."""
    from .made import describe
    from .page import is_shown, write_page
    from .table import Line, find_column, gather, write_table

    shown: list[Line] = []
    measured: dict[str, None] = {}

    def keep_shown(lines: Iterator[Line]) -> Iterator[Line]:
        for line in lines:
            measured.setdefault(find_column(line))
            if is_shown(grid, line):
                shown.append(line)
            yield line

    table = write_table(store.folder / TABLE, keep_shown(gather(grid, planned, store)))
    made = describe(planned, store)
    if made.done == made.cells and (stray := [column for column in grid.columns if column not in measured]):
        warnings.warn(
            f"nothing measured the column {stray[0]!r} of the grid, which is empty on the page"
            f"{did_you_mean(stray[0], tuple(measured), 40)}",
            stacklevel=3,
        )
    text = write_page(grid, shown, command, made)
    page, *_ = [write_whole(file, text) for file in (store.folder / PAGE, *further)]
    return Summary(len(planned), made.cells, made.done, new, tuple(failed.items()), table, page)
