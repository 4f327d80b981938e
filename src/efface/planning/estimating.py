"""Plans the memory of an erasure before it starts, and finds the flags that would make it fit.

Each moment of a step and of drawing is a straight line in the rows, and the largest moment counts. The lines are fitted
to trial steps (`probe_steps`), which never have more rows at once in the student's pass than the run: steps of two and
four rows of each term run row by row; then one of four by twos where the run's own steps run in pieces, or those of one
and two rows whole where they run whole. Where that would cost more than a tenth of the run, the lines are fitted to
steps of one and two rows with the shapes of tensors alone (`shapes`). The training's preparation, such as the encoding
of a vocabulary, is over when the plan is made, and is no part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from ..models.offload import list_resting
from ..models.quantised import list_scales
from ..training.distributed import find_process_group
from ..training.interfaces import MemoryFootprint
from ..training.trainer import Trainer
from .machine import format_size
from .plan import DoesNotFit, Plan
from .probe_steps import (
    PeakFit,
    RowwiseCost,
    choose_whole_sizes,
    find_peak,
    list_tensors,
    measure_drawing,
    measure_rowwise,
    measure_step,
)
from .shapes import is_trial_cheap, measure_shapes
from .tracker import count_bytes

LESS = "--checkpointing, --offload, --dtype bf16 and fewer --weights take less"


def build_for_planning(make: Callable[[], Trainer], device: torch.device) -> Trainer:
    """Sets a training up; raises DoesNotFit where there is no room for the trained tensors."""
    try:
        return make()
    except torch.OutOfMemoryError as error:
        less = "--dtype bf16, --offload, --moments 8 and fewer --weights take less"
        raise DoesNotFit(f"the trained tensors do not fit on {device} beside the model; {less}") from error


def estimate(trainer: Trainer, progress: Callable[[int, int], None] = lambda done, of: None) -> Plan:
    """Plans a training that is set up, and leaves everything as it was.

    It makes trial steps where these cost at most a tenth of the run's steps. Otherwise it makes no pass of the network,
    unless a method needs numbers.

    Args:
        progress: called as progress(done, of) before each part of the work and after the last.

    Raises:
        DoesNotFit: trial steps did not fit on the GPU; the message has the part of the plan that is known.
    """
    if find_process_group().size == 1 and not is_trial_cheap(trainer):
        with suppress(RuntimeError):
            return estimate_from_shapes(trainer, progress)
    return _estimate_by_trial(trainer, progress)


def estimate_from_shapes(
    trainer: Trainer, progress: Callable[[int, int], None] = lambda done, of: None, drawing: PeakFit | None = None
) -> Plan:
    """Plans a training from shapes of tensors alone; `estimate` calls this where trial steps would cost too much.

    `drawing` is what `shapes.fit_drawing` found of the model, where several trainings of it are planned.
    """
    cost = measure_shapes(trainer, progress, drawing)
    plan = _plan(trainer, cost.each, cost.step_peak, cost.waiting, cost.drawing)
    micro = min(plan.rows, trainer.config.micro_batch or plan.rows)
    return replace(plan, micro=micro, apart=cost.apart, from_shapes=True)


def _estimate_by_trial(trainer: Trainer, progress: Callable[[int, int], None]) -> Plan:
    model = trainer.model
    try:
        progress(0, 3)
        one = measure_rowwise(trainer)
        progress(1, 3)
        drawing = PeakFit.through(measure_drawing(model, 1), measure_drawing(model, 2))
    except torch.OutOfMemoryError as error:
        sizes = [format_size(n) for n in (count_bytes(model.weights.values()), _count_trained(trainer))]
        said = f"{sizes[0]} of weights and {sizes[1]} of trained tensors"
        raise DoesNotFit(f"not even one row at once fits on {model.device} beside {said}; {LESS}") from error
    least = _plan(trainer, one.each, PeakFit.from_size(one.step_peak), one.waiting, drawing)
    progress(2, 3)
    try:
        plan = _plan_more(trainer, least, one)
    except torch.OutOfMemoryError as error:
        said = f"with --micro-batch 1 it would need {format_size(least.need)}; {LESS} too"
        raise DoesNotFit(f"not even two rows at once fit on {model.device}; {said}\n{least.format_table()}") from error
    progress(3, 3)
    return plan


def _plan(trainer: Trainer, each: int, step_peak: PeakFit, waiting: float, drawing: PeakFit) -> Plan:
    """The plan with one row at once; the student's pass has `each` rows for one row of each term."""
    model, footprints = trainer.model, _list_footprints(trainer)
    resting, scales = list_resting(model), list_scales(model.network) if model.quantised else []
    return Plan(
        weights=count_bytes([*(t for t in model.weights.values() if t.device == model.device), *resting, *scales]),
        resting=0 if trainer.context.trains_text_encoder else count_bytes(resting),
        trained=_count_trained(trainer),
        kept=_count_kept(trainer, footprints)
        + _count_stored(trainer, footprints)
        + sum(each.held_bytes for each in trainer.learners),
        step_peak=step_peak,
        drawing=drawing,
        rows=each * trainer.config.batch,
        micro=1,
        waiting=waiting,
        apart=0,
        **_plan_drawing(trainer, footprints),
        recorded=sum(t.cache_bytes + t.image_bytes for t in footprints),
        drawn=sum(t.drawn for t in footprints),
        notes=tuple(each.about for each in trainer.learners if each.about),
    )


def _plan_more(trainer: Trainer, least: Plan, one: RowwiseCost) -> Plan:
    """The plan at the run's own rows at once, from that of one row, a step by twos, and a whole step."""
    micro = min(least.rows, trainer.config.micro_batch or least.rows)
    if micro == 1 < least.rows:
        return least
    if micro < least.rows:
        waits = one.waiting * (one.terms * one.each - 1)  # in as many pieces of twice as many rows, twice as much waits
        by_twos = measure_step(trainer, 2 * one.terms, 2)[0]
        singly = [(made, live - waits) for made, live in one.moments]
        step_peak = PeakFit.through(singly, [(made, live - 2 * waits) for made, live in by_twos])
        return replace(least, step_peak=step_peak, micro=micro)
    sizes = choose_whole_sizes(trainer)
    whole = [measure_step(trainer, n)[0] for n in sizes]
    step_peak = PeakFit.from_size(find_peak(whole[0]))
    if len(whole) == 2:
        step_peak = PeakFit.through(whole[0], whole[1], sizes[0] * one.each)
    return replace(least, step_peak=step_peak, micro=micro, apart=round(one.step_peak - step_peak(1)))


def suggest_lighter(trainer: Trainer, plan: Plan) -> dict[str, Plan]:
    """Finds plans that need less, by their flags; each also has the flags of those before it."""
    found: dict[str, Plan] = {}
    flags, last = "", plan
    if plan.micro > 1:
        flags, last = "--micro-batch 1", replace(plan, micro=1)
        found[flags] = last
    network: Any = trainer.model.network
    if not network.is_gradient_checkpointing:
        network.enable_gradient_checkpointing()
        try:
            flags, last = f"{flags} --checkpointing".strip(), replace(estimate(trainer), micro=last.micro)
        finally:
            network.disable_gradient_checkpointing()
        found[flags] = last
    if last.sampling > last.learning and (fewer := _plan_single_drawing(trainer, last)).pictures < last.pictures:
        flags, last = f"{flags} --draw-batch 1".strip(), fewer
        found[flags] = last
    if plan.resting and trainer.model.device.type == "cuda":
        flags = f"{flags} --offload".strip()
        found[flags] = replace(last, weights=last.weights - plan.resting)
    return found


def _plan_single_drawing(trainer: Trainer, plan: Plan) -> Plan:
    """The plan in which a training draws picture by picture."""
    before, trainer.model.draw_batch = trainer.model.draw_batch, 1
    try:
        return replace(plan, **_plan_drawing(trainer, _list_footprints(trainer)))
    finally:
        trainer.model.draw_batch = before


def _plan_drawing(trainer: Trainer, footprints: Sequence[MemoryFootprint]) -> dict[str, Any]:
    """The number of pictures drawn together, and the bytes recorded meanwhile without those that are in `kept`."""
    trace_bytes = max((t.trace_bytes for t in footprints), default=0) - _count_stored(trainer, footprints)
    return {"pictures": max((t.images_at_once for t in footprints), default=0), "trace_bytes": max(0, trace_bytes)}


def _list_footprints(trainer: Trainer) -> list[MemoryFootprint]:
    """The memory that each source's drawing takes."""
    return [source.estimate_footprint(trainer.context) for source in trainer.list_sources()]


def _count_trained(trainer: Trainer) -> int:
    """Bytes of the trained tensors and Adam's moments, twice if a balance with inner steps saves a copy of them."""
    learning = [tensor for learner in trainer.learners for tensor in learner.list_optimised()]
    moments = 2 * sum(tensor.numel() for tensor in learning) * trainer.config.moments // 8
    aside = count_bytes(learning) + moments if trainer.balance.inner else 0
    return count_bytes(list_tensors(trainer)[len(trainer.model.weights) :]) + moments + aside


def _count_stored(trainer: Trainer, footprints: Sequence[MemoryFootprint]) -> int:
    """Bytes of recordings on the device: up to the store's bound on a CPU, none on a GPU."""
    here = trainer.model.device.type == "cpu"
    return min(sum(t.cache_bytes for t in footprints), trainer.model.recordings.bound) if here else 0


def _count_kept(trainer: Trainer, footprints: Sequence[MemoryFootprint]) -> int:
    """Bytes of the last good state and of pictures on the device: none on a GPU."""
    if trainer.model.device.type != "cpu":
        return 0
    return count_bytes(trainer.update.compute_deltas().values()) + sum(t.image_bytes for t in footprints)
