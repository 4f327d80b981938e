"""What the terminal shows: results on stdout; progress, remarks and errors on stderr."""

import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LINE_EVERY = 10.0
"""Seconds between lines of progress where stderr is no terminal."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    say(f"warning: {text}")


def result(data: Any, as_json: bool, text: str) -> None:
    """The command's result, for a program or for a person."""
    print(json.dumps(data, indent=1, ensure_ascii=False) if as_json else text, flush=True)


def complain(error: BaseException, code: int) -> int:
    """One clear message; the traceback too where EFFACE_TRACEBACK is set."""
    if os.environ.get("EFFACE_TRACEBACK"):
        traceback.print_exception(error)
    say(f"error: {error}" if str(error) else f"error: {type(error).__name__}")
    return code


def quiet() -> None:
    """One line for a warning, and no bars of the libraries beneath."""
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.showwarning = lambda message, *_args, **_kwargs: warn(str(message))


def writable_folder(path: Path) -> Path:
    """The folder, made where it was missing; asked before the work, not after.

    Raises:
        OSError: it can't be made or written in.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".efface-probe"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may have been faster
    except OSError as error:
        raise OSError(f"cannot write in {path}: {error.strerror or error}") from error
    return path


@contextmanager
def progress(aloud: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """A function to be called with a stage's name, what is done, and of how much: shows bars with an ETA, if aloud."""
    if not aloud:
        yield lambda stage, done, total: None
    elif sys.stderr.isatty():
        with _bars() as on_progress:
            yield on_progress
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
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

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield on_progress


def _lines() -> Callable[[str, int, int], None]:
    """A line at a stage's first sign of life, every few seconds, and at its end."""
    began: dict[str, float] = {}
    spoken: dict[str, float] = {}

    def on_progress(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        start = began.setdefault(stage, now)
        if stage in spoken and done < total and now - spoken[stage] < LINE_EVERY:
            return
        spoken[stage] = now
        took = now - start
        left = f", about {took / done * (total - done):.0f} s left" if done and took and done < total else ""
        say(f"{stage}: {done} of {total}{left}")

    return on_progress
