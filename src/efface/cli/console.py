"""Output on the terminal: results on stdout; progress, remarks and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..api.progress import STEPS, Report, report_nothing, show_bars
from ..origin import find_line
from ..plurals import write_count

if TYPE_CHECKING:
    from ..planning.gradients import GradientPlan
    from ..planning.plan import Plan
    from ..suites.spec import Suite

LINE_EVERY = 10.0
"""Seconds between lines of progress where stderr is not a terminal."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    say(f"warning: {text}")


def print_result(data: Any, as_json: bool, text: str) -> None:
    """Prints the command's result: `data` as JSON, or `text`."""
    print(json.dumps(data, indent=1, ensure_ascii=False) if as_json else text, flush=True)


def complain(error: BaseException, code: int) -> int:
    """Prints an error as one message, with its traceback where EFFACE_TRACEBACK is set.

    Where code of another package raised it, the message names the file and the line.
    """
    if os.environ.get("EFFACE_TRACEBACK"):
        traceback.print_exception(error)
    where = f" ({type(error).__name__} in {line})" if (line := find_line(error)) else ""
    say(f"error: {str(error) or type(error).__name__}{where}")
    return code


def quieten() -> None:
    """Shows each warning on one line, and hides the progress bars of other libraries."""
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("always", category=UserWarning, module=r"efface\b")
    warnings.showwarning = lambda message, *_args, **_kwargs: warn(str(message))


def tell_suite(suite: Suite) -> None:
    """Prints how many prompts will be drawn, and, where the suite is a file of prompts, how the file was read."""
    for line in suite.summary.format_lines() if suite.summary else ():
        say(line)
    n = len(suite.rows)
    say(
        f"{suite.spec.name}: {write_count(n, 'prompt')} will be drawn without and with the edit: "
        f"{write_count(2 * n, 'picture')} to judge"
    )


def tell_plan(plan: Plan | GradientPlan) -> None:
    """Prints how much memory a training or gradient-based attacks will need."""
    say(f"memory that this run needs, at most:\n{plan.format_table()}")


@contextmanager
def show_progress(aloud: bool = True) -> Iterator[Report]:
    """Yields a function that shows progress; it takes a stage's name, the amount done and the total.

    The function does nothing where `aloud` is False.
    """
    if not aloud:
        yield report_nothing
    elif sys.stderr.isatty():
        with show_bars() as report:
            yield report
    else:
        yield _print_lines()


def _print_lines() -> Report:
    """Returns a function that prints a line when a stage begins, every few seconds, and when it ends."""
    began: dict[str, tuple[float, int]] = {}
    spoken: dict[str, float] = {}
    ended: set[str] = set()

    def on_progress(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        start, before = began.setdefault(stage, (now, done))
        again = done < total or stage in ended  # a stage that comes again and again is not told each time
        if stage in spoken and again and now - spoken[stage] < LINE_EVERY:
            return
        if done >= total:
            ended.add(stage)
        spoken[stage] = now
        took, made = now - start, done - before  # what was there before this run does not count in its speed
        foreseen = made > 0 and took and done < total and stage != STEPS  # the steps begin anew with every drawing
        left = f", about {took / made * (total - done):.0f} s left" if foreseen else ""
        say(f"{stage}: {done} of {total}{left}")

    return on_progress
