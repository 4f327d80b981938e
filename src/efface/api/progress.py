"""Progress of long work: a bar on a terminal, a function of your own, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..models.base import Model

STEPS, SILENCE = "steps of a drawing", 5.0
"""A stage that is told where nothing else was for so many seconds: a drawing that takes long."""
Report = Callable[[str, int, int], None]
"""Called with a stage's name, what is done, and of how much."""
Progress = Report | Literal[False] | None
"""None: a bar, where stderr is a terminal; False: nothing; else a function to call."""


def silent(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


@contextmanager
def shown(progress: Progress) -> Iterator[Report]:
    """Within, a function to be called with a stage's name, what is done, and of how much.

    Raises:
        TypeError: `progress` is neither None, False nor a function.
    """
    if progress is None and sys.stderr.isatty():
        with bars() as report:
            yield report
    elif progress is None or progress is False:
        yield silent
    elif callable(progress):
        yield progress
    else:
        raise TypeError(f"progress is None, False, or a function of (stage, done, total); got {progress!r}")


@contextmanager
def shown_with_steps(progress: Progress, model: Model) -> Iterator[Report]:
    """As `shown`; in between, steps of this model's drawings are told where nothing was for `SILENCE` seconds.

    On a CPU one drawing of a large model takes many minutes, and is part of larger work that is told when it is done.
    """
    last = time.monotonic()
    with shown(progress) as report:

        def aloud(stage: str, done: int, total: int) -> None:
            nonlocal last
            last = time.monotonic()
            report(stage, done, total)

        def on_step(done: int, total: int) -> None:
            if time.monotonic() - last >= SILENCE:
                aloud(STEPS, done, total)

        before, model.on_step = model.on_step, on_step
        try:
            yield aloud
        finally:
            model.on_step = before


@contextmanager
def bars() -> Iterator[Report]:
    """Bars on stderr, one for each stage, with the time that is left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TextColumn("elapsed"))
    columns += (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:  # what was there before this run does not count in its speed
                tasks[stage] = bar.add_task(stage, total=total, completed=done)
            bar.update(tasks[stage], completed=done, total=total)

        yield report
