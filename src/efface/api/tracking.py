"""Sends losses and rates to TensorBoard, Weights & Biases and others, through accelerate's trackers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog import did_you_mean
from ..files import check_folder

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

    from ..records.report import Record

Track = str | Sequence[Any]
"""The name of a tracker, or several names or instances of accelerate's `GeneralTracker`."""
Log = Callable[[Mapping[str, float], int], None]
"""Called with numbers by name, and their step."""
PROJECT = "efface"
FOLDER = "runs"
"""Where trackers that write files write them, if nothing else is said."""
EXTRAS = {"tensorboard": "'efface[track]'", "comet_ml": "comet-ml"}
"""What pip installs for a tracker, where that is not its name."""


def check_trackers(track: Track, folder: str | Path = FOLDER) -> list[Any]:
    """The trackers that are asked for, as names or instances, each once.

    Raises:
        ValueError: there is no such tracker, or its package is not installed; the message says how to install it.
        TypeError: a tracker is neither a name nor an instance.
        OSError: the folder of a tracker that writes files can't be written in.
    """
    asked = list(dict.fromkeys([track] if isinstance(track, str) else track)) if track else []
    if not asked:
        return []
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

    there = {str(kind) for kind in get_available_trackers()}
    for each in asked:
        if isinstance(each, GeneralTracker):
            continue
        if not isinstance(each, str):
            raise TypeError(
                f"a tracker is a name, such as 'tensorboard', or a GeneralTracker of accelerate; got {each!r}"
            )
        if each not in LOGGER_TYPE_TO_CLASS:
            raise ValueError(f"there is no tracker {each!r}{did_you_mean(each, sorted(LOGGER_TYPE_TO_CLASS))}")
        if each not in there:
            raise ValueError(f"the tracker {each} is not installed: pip install {EXTRAS.get(each, each)}")
        if LOGGER_TYPE_TO_CLASS[each].requires_logging_directory:
            check_folder(folder)
    return asked


@contextmanager
def open_trackers(track: Track, run: str, settings: Mapping[str, Any], folder: str | Path = FOLDER) -> Iterator[Log]:
    """Opens the trackers and gives a function that sends numbers to each; without trackers it does nothing.

    Args:
        track: as in `check_trackers`, whose errors are raised before anything is sent.
        run: the name of the run; names of files also have the time, so that later runs are separate.
        settings: the settings of the run; values other than numbers and texts are sent as text.
    """
    found = check_trackers(track, folder)
    named = f"{run}-{time.strftime('%Y%m%d-%H%M%S')}"
    with ExitStack() as ends:
        trackers = []
        for each in found:
            tracker = _build(each, named, folder) if isinstance(each, str) else each
            ends.callback(tracker.finish)
            tracker.store_init_configuration({key: _to_plain(value) for key, value in settings.items()})
            trackers.append(tracker)

        def log(numbers: Mapping[str, float], step: int) -> None:
            for tracker in trackers:
                tracker.log(dict(numbers), step=step)

        yield log


def name_losses(more: Mapping[str, Any]) -> dict[str, float]:
    """The losses of a training after a step, by "loss/role", or "loss/learner/role" for a search; empty without losses.

    Args:
        more: the keyword arguments that `Method.fit` gives to its `progress`.
    """
    learner = str(more.get("learner", ""))
    within = f"{learner}/" if learner.endswith("Search") else ""
    return {f"loss/{within}{role}": float(value) for role, value in (more.get("loss") or {}).items()}


def name_rates(record: Record) -> dict[str, float]:
    """The numbers of an evaluation that could be measured, by "metric/group/judge", with "base" and "edited"."""
    found: dict[str, float] = {}
    for m in record.measures:
        over = "" if m.threshold is None else f"/over {m.threshold:g}"
        for variant, estimate in (("base", m.base), ("edited", m.edited)):
            if estimate.value is not None:
                found[f"{m.metric}/{m.group}/{m.judge}{over}/{variant}"] = estimate.value
    return found


def _build(name: str, run: str, folder: str | Path) -> GeneralTracker:
    """Starts accelerate's tracker of that name; one that writes files gets a folder for each run, others a project."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[name]
    own = {"name": run} if name == "wandb" else {}
    tracker = kind(run, logging_dir=str(folder)) if kind.requires_logging_directory else kind(PROJECT, **own)
    tracker.start()
    return tracker


def _to_plain(value: Any) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)
