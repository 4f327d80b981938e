"""Plans the memory of a sweep's trainings, for the models that are on this machine."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..api.resources import find_bundle
from ..files import hash_json
from .jobs import Job

if TYPE_CHECKING:
    from ..models.base import Model
    from ..planning.probe_steps import PeakFit


def is_local(model: str) -> bool:
    """Whether a model can be opened without the network."""
    return find_bundle(model) is not None or Path(model).exists()


def describe_memory(jobs: Sequence[Job], device: str | None = None) -> list[str]:
    """Opens the models and makes a line for each: which training needs the most memory, and how much.

    Raises:
        ValueError: a method or a request can't work on a model; the message names the job.
    """
    firsts: dict[str, dict[str, Job]] = {}
    for job in jobs:
        firsts.setdefault(job.model, {}).setdefault(_describe_size(job), job)
    lines = []
    for model, some in firsts.items():
        if not is_local(model):
            lines.append(f"memory of trainings of {model} is known when its weights are there")
            continue
        needs = {job.name: need for job in some.values() if (need := _plan_job(job, device))}
        most = max(needs, key=lambda name: needs[name], default="")
        lines += [f"memory: at most {_format(needs[most])} for each worker, by {most}"] if most else []
    return lines


def _describe_size(job: Job) -> str:
    """What the memory of a training depends on: jobs that differ in the words of concepts alone need the same."""
    settings = {name: value for name, value in job.settings.items() if name != "seed"}
    return hash_json(
        json.loads(json.dumps([job.method, settings, len(job.targets), bool(job.anchor), len(job.keep)], default=str))
    )


def _plan_job(job: Job, device: str | None) -> int:
    """Bytes that a job's training needs on the device; 0 where it has no training to plan."""
    from ..methods.configure import build_method
    from ..planning.estimating import estimate_from_shapes
    from .work import open_model

    try:
        model = open_model(job.model, device)
        method = build_method(job.method, model, dict(job.settings))
        method.check(job.request, model)
        trainer = method.build(model, job.request)
    except ValueError as error:
        raise ValueError(f"{job.name}: {error}") from error
    return estimate_from_shapes(trainer, drawing=_fit_drawing(model)).need if trainer else 0


@functools.lru_cache(maxsize=1)
def _fit_drawing(model: Model) -> PeakFit:
    """What drawing takes; measured once for an open model, because it takes nearly half of a plan's time."""
    from ..planning.shapes import fit_drawing

    return fit_drawing(model)


def _format(size: int) -> str:
    from ..planning.machine import format_size

    return format_size(size)
