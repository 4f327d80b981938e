"""Plans the memory of a sweep's trainings, for the models that are on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..api.resources import find_bundle
from ..concept import Erasure
from .jobs import Job


def is_local(model: str) -> bool:
    """Whether a model can be opened without the network."""
    return find_bundle(model) is not None or Path(model).exists()


def describe_memory(jobs: Sequence[Job], device: str | None = None) -> list[str]:
    """Opens the models and makes a line for each: which training needs the most memory, and how much.

    Raises:
        ValueError: a method or a request can't work on a model; the message names the job.
    """
    firsts: dict[str, dict[tuple[str, str], Job]] = {}
    for job in jobs:
        firsts.setdefault(job.model, {}).setdefault((job.label, job.setting), job)
    lines = []
    for model, some in firsts.items():
        if not is_local(model):
            lines.append(f"memory of trainings of {model} is known when its weights are there")
            continue
        needs = {job.name: need for job in some.values() if (need := _plan_job(job, device))}
        most = max(needs, key=lambda name: needs[name], default="")
        lines += [f"memory: at most {_format(needs[most])} for each worker, by {most}"] if most else []
    return lines


def _plan_job(job: Job, device: str | None) -> int:
    """Bytes that a job's training needs on the device; 0 where it has no training to plan."""
    from ..methods.configure import build_method
    from ..planning.estimating import estimate_from_shapes
    from .work import open_model

    try:
        model = open_model(job.model, device)
        method = build_method(job.method, model, dict(job.settings))
        request = Erasure(job.targets, job.anchor, job.keep)
        method.check(request, model)
        trainer = method.build(model, request)
    except ValueError as error:
        raise ValueError(f"{job.name}: {error}") from error
    return estimate_from_shapes(trainer).need if trainer else 0


def _format(size: int) -> str:
    from ..planning.machine import format_size

    return format_size(size)
