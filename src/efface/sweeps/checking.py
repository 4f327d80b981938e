"""Suites, scorers and the judges of attacks, checked before a sweep fits its first edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..concept import Erasure
from .grid import Grid
from .jobs import Job

if TYPE_CHECKING:
    from ..models.base import Model
    from ..scorers import Judge
    from ..suites.spec import Suite


def check_measuring(grid: Grid, jobs: Sequence[Job], device: str | None) -> None:
    """Make the suite of every request of these jobs, and ask every scorer of a small picture.

    Raises:
        ValueError: an unknown suite, scorer or protocol, scorers that can't judge what is erased, a scorer that fails
            at whatever it is shown, or nothing to attack; names the job.
        OSError: a suite's file is missing.
    """
    checked: set[tuple[str, Erasure, bool]] = set()
    tried: set[tuple[str, str]] = set()
    for job in jobs:
        key = (job.model, job.request, _is_attacked(job))
        if key in checked:
            continue
        checked.add(key)
        try:
            _check(grid, job, device, tried)
        except ValueError as error:
            raise ValueError(f"{job.name}: {error}") from error


def build_measuring(
    grid: Grid, job: Job, model: Model, sizes: Mapping[str, int], fraction: float = 1.0
) -> tuple[Suite, list[Judge]]:
    """The suite of a job's request with these sizes, and its scorers; arguments and errors are those of `evaluate`."""
    from ..api.evaluating import check_evaluation

    return check_evaluation(
        model, job.request, grid.name_suite(job.concept), asks=grid.name_asked(job.concept), scorers=grid.scorers,
        protocol=grid.protocol, sizes=sizes, fraction=fraction,
    )  # fmt: skip


def _is_attacked(job: Job) -> bool:
    """Whether any of its edit's strengths is attacked."""
    return any(job.list_attacks(strength) for strength in job.strengths)


def _check(grid: Grid, job: Job, device: str | None, tried: set[tuple[str, str]]) -> None:
    from ..api.attacking import check_attackable
    from ..evaluation.evaluate import Settings
    from ..evaluation.trial import Unmeasured, try_scorers
    from ..scorers.ssim import Ssim
    from .work import open_model

    model = open_model(job.model, device)
    suite, scorers = build_measuring(grid, job, model, grid.sizes, grid.fraction)
    if grid.purify:
        Ssim().check(build_measuring(grid, job, model, grid.purify.sizes)[0].rows)
    if _is_attacked(job):
        check_attackable(suite, scorers, Settings(), grid.attacking.rows, grid.attacking.controls)
    new = [scorer for scorer in scorers if (job.model, scorer.name) not in tried]
    try:
        try_scorers(new, suite.rows, model.resolution)
    except Unmeasured as error:
        raise ValueError(str(error)) from error
    tried.update((job.model, scorer.name) for scorer in new)
