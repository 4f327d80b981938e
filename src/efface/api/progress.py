"""Progress of long work: a bar on a terminal or in a notebook, the user's own function, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..models.base import Model

STEPS, SILENCE = "steps of a drawing", 5.0
"""A stage that is told where nothing else was for so many seconds: a drawing that takes long."""
REDRAW = 0.2
"""Seconds between two drawings of a notebook's bars."""
Report = Callable[[str, int, int], None]
"""Is called with a stage's name, what is done, and the total."""
Progress = Report | Literal[False] | None
"""None for a bar, if stderr is a terminal or in a notebook; False for nothing; otherwise a function to call."""


def report_nothing(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


@contextmanager
def show_progress(progress: Progress) -> Iterator[Report]:
    """Gives a function to report progress: it is called with a stage's name, what is done, and the total.

    Raises:
        TypeError: `progress` is neither None, False nor a function.
    """
    if progress is None and (display := find_notebook()):
        yield build_notebook_bars(display)
    elif progress is None and sys.stderr.isatty():
        with show_bars() as report:
            yield report
    elif progress is None or progress is False:
        yield report_nothing
    elif callable(progress):
        yield progress
    else:
        raise TypeError(f"progress is None, False, or a function of (stage, done, total); got {progress!r}")


@contextmanager
def show_progress_with_steps(progress: Progress, model: Model) -> Iterator[Report]:
    """Like `show_progress`, and reports steps of this model's drawings if nothing was reported for `SILENCE` seconds.

    On a CPU one drawing of a large model takes many minutes, and larger work is only reported after each drawing.
    """
    last = time.monotonic()
    with show_progress(progress) as report:

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


def find_notebook() -> Callable[..., Any] | None:
    """IPython's `display` if this process belongs to a notebook; otherwise None."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if not hasattr(shell, "kernel"):  # a terminal's IPython has none
        return None
    from IPython.display import display  # type: ignore[import-not-found]

    return display


@dataclass
class Notebook:
    """The bars of a notebook, one for each stage, which IPython can display and redraw in place."""

    stages: dict[str, tuple[int, int, float, int]] = field(default_factory=dict)
    """For each stage: what is done, the total, the time of its beginning, and what was done before this run."""

    def _repr_html_(self) -> str:
        return "".join(map(self._format_line, self.stages))

    def __repr__(self) -> str:
        return "; ".join(f"{stage}: {done} of {total}" for stage, (done, total, *_) in self.stages.items())

    def _format_line(self, stage: str) -> str:
        done, total, began, before = self.stages[stage]
        made, took = done - before, time.monotonic() - began
        foreseen = made > 0 and done < total and stage != STEPS  # steps are counted from 0 in every drawing
        left = f", about {took / made * (total - done):.0f} s left" if foreseen else ""
        bar = f'<progress value="{done}" max="{max(total, 1)}" aria-label="{escape(stage)}"></progress>'
        return f"<div>{bar} {escape(stage)}: {done} of {total}{left}</div>"


def build_notebook_bars(display: Callable[..., Any]) -> Report:
    """Makes bars in the running cell, by IPython's `display`, which must return a handle for `display_id`."""
    shown_now, drawn = Notebook(), 0.0
    handle: Any = None

    def report(stage: str, done: int, total: int) -> None:
        nonlocal handle, drawn
        now = time.monotonic()
        began, before = shown_now.stages[stage][2:] if stage in shown_now.stages else (now, done)
        news = stage not in shown_now.stages or done >= total
        shown_now.stages[stage] = (done, total, began, before)
        if news or now - drawn >= REDRAW:
            drawn = now
            if handle is None:
                handle = display(shown_now, display_id=True)
            else:
                handle.update(shown_now)

    return report


@contextmanager
def show_bars() -> Iterator[Report]:
    """Makes bars on stderr, one for each stage, with the remaining time."""
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
            if stage == STEPS:  # they begin anew with every drawing: what they took before foretells nothing
                bar.reset(tasks[stage], total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield report
