"""Suites, scorers and the judges of attacks, checked before a sweep fits its first edit."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from ..concept import Erasure
from .grid import Grid
from .jobs import Job


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
        request = Erasure(job.targets, job.anchor, job.keep)
        key = (job.model, request, _is_attacked(job))
        if key in checked:
            continue
        checked.add(key)
        try:
            _check(grid, job, request, device, tried)
        except ValueError as error:
            raise ValueError(f"{job.name}: {error}") from error


def _is_attacked(job: Job) -> bool:
    """Whether any of its edit's strengths is attacked."""
    return any(job.list_attacks(strength) for strength in job.strengths)


def _check(grid: Grid, job: Job, request: Erasure, device: str | None, tried: set[tuple[str, str]]) -> None:
    from ..api.attacking import check_attackable
    from ..api.evaluating import check_evaluation
    from ..evaluation.evaluate import Settings
    from ..evaluation.trial import Unmeasured, try_scorers
    from ..scorers.ssim import Ssim
    from .work import open_model

    model = open_model(job.model, device)
    check = functools.partial(
        check_evaluation, model, request, grid.name_suite(job.concept), asks=grid.name_asked(job.concept),
        scorers=grid.scorers, protocol=grid.protocol,
    )  # fmt: skip
    suite, scorers = check(sizes=grid.sizes, fraction=grid.fraction)
    if grid.purify:
        Ssim().check(check(sizes=grid.purify.sizes)[0].rows)
    if _is_attacked(job):
        check_attackable(suite, scorers, Settings(), grid.attacking.rows, grid.attacking.controls)
    new = [scorer for scorer in scorers if (job.model, scorer.name) not in tried]
    try:
        try_scorers(new, suite.rows, model.resolution)
    except Unmeasured as error:
        raise ValueError(str(error)) from error
    tried.update((job.model, scorer.name) for scorer in new)
