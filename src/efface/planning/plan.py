"""What an erasure will take, said before it starts, and which flag would make it fit.

need = weights + trained + kept + max(step(m), drawing(d)), in bytes on the device. `weights` are all parameters of the
model; `trained` are the tensors that learn and Adam's two moments of each; `step(m)` is what one step adds with m rows
at once in the student's pass; `drawing(d)` is what a step of drawing d pictures adds; `kept`, on a CPU alone, are the
last good state and the part of the recordings that the store holds in memory. Step and drawing are straight lines in
their rows.

The lines are laid through trial steps that are really made (`probe_steps`), never with more rows at once in the
student's pass than the run has: steps of two and four rows of each term go row by row, one of four by twos, and one of
at most two goes whole where the run's own do. Where that would cost more than a tenth of the run, they are laid through
steps of one and two rows of which the shapes alone are known (`shapes`). What kernels take inside themselves is not
seen; `SPARE` allows for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from ..models.base import Model
from ..models.offload import ENCODERS
from ..models.quantised import list_scales
from ..training.distributed import process_group
from ..training.interfaces import MemoryFootprint
from ..training.trainer import Trainer
from .machine import format_size
from .probe_steps import LinearFit, RowwiseCost, list_tensors, measure_drawing, measure_rowwise, measure_step
from .shapes import measure_shapes, trial_is_cheap
from .tracker import count_bytes

SPARE = 1.1
"""How much more than planned must be free, for workspaces, fragments and the libraries' own."""
SHAPES = "(from the shapes of tensors: trial steps would cost more than a tenth of this run)"
LESS = "--checkpointing, --offload, --dtype bf16 and fewer --weights take less"


class DoesNotFit(ValueError):
    """A run needs more memory than it may have; the message holds the plan and what would make it fit."""


@final
@dataclass(frozen=True)
class Plan:
    """Bytes and rows of a run."""

    weights: int
    """Bytes of the model's parameters on the device."""
    resting: int
    """Bytes of them that are text encoders' and the autoencoder's, which `--offload` would keep elsewhere."""
    trained: int
    """Bytes of what learns, with Adam's moments."""
    kept: int
    """Bytes that stay on the device: a search's embeddings of words, and on a CPU the last good state, pictures, and
    recordings that are held in memory."""
    turn: LinearFit
    """Bytes that a step adds, by rows at once in the student's pass."""
    drawing: LinearFit
    """Bytes that drawing adds, by pictures at once."""
    rows: int
    """Rows in the student's pass, in a step of the weights."""
    micro: int
    """Rows of them that go through the student at once."""
    waiting: float
    """Bytes that each of the other rows takes meanwhile."""
    apart: int
    """Bytes beside, where rows go piece by piece: gradients of two pieces that are summed."""
    pictures: int
    """Pictures that are drawn together."""
    traced: int
    """Bytes that are recorded of these meanwhile, beyond those that are kept anyway."""
    recorded: int
    """Bytes of recordings, in the host's memory or on disk."""
    drawn: int = 0
    """Trajectories and pictures that are drawn before they can be trained on; drawn anew they count once."""
    notes: tuple[str, ...] = ()
    """What else is worth knowing beforehand, such as how many words are searched."""
    from_shapes: bool = False
    """Whether step and drawing were estimated from shapes, and no trial step was made."""

    @property
    def need(self) -> int:
        """Bytes on the device at the worst moment."""
        return self.weights + self.trained + self.kept + max(self.learning, self.sampling)

    @property
    def learning(self) -> int:
        """Bytes that a step of the weights adds."""
        pieces = self.apart if self.micro < self.rows else 0
        return self.turn(self.micro) + pieces + round(self.waiting * (self.rows - self.micro))

    @property
    def sampling(self) -> int:
        """Bytes that drawing adds."""
        return self.drawing(self.pictures) + self.traced if self.pictures else 0

    def table(self) -> str:
        """Writes the plan as text, a line for each part."""
        lines = [
            ("weights of the model", self.weights),
            ("what learns, and Adam's moments", self.trained),
            ("the last good state, and recordings held", self.kept),
            (f"a turn, {self.micro} of {self.rows} rows at once", self.learning),
            (f"or drawing {self.pictures} at once", self.sampling),
            ("at most, on the device", self.need),
            ("recordings, in memory or on disk", self.recorded),
        ]
        rows = [f"  {name:<40} {format_size(n):>9}" for name, n in lines if n]
        rows += [f"  {'trajectories and pictures drawn first':<40} {self.drawn:>6,}"] if self.drawn else []
        return "\n".join([*rows, *(f"  {note}" for note in (*self.notes, *[SHAPES] * self.from_shapes))])


def build_for_planning(make: Callable[[], Trainer], device: torch.device) -> Trainer:
    """Sets a game up; raises DoesNotFit where there is no room for what learns."""
    try:
        return make()
    except torch.OutOfMemoryError as error:
        less = "--dtype bf16, --offload, --moments 8 and fewer --weights take less"
        raise DoesNotFit(f"what learns does not fit on {device} beside the model; {less}") from error


def estimate(trainer: Trainer, progress: Callable[[int, int], None] = lambda done, of: None) -> Plan:
    """Plans a game that is set up, and leaves everything as it was.

    Makes trial steps where these cost at most a tenth of the run's steps; else no pass of the network at all, unless a
    method cannot do without numbers, or a loss not with a single row.

    Args:
        progress: called as progress(done, of) before each part of the work and after the last.

    Raises:
        DoesNotFit: trial steps did not fit on the GPU; says what is known of the plan nevertheless.
    """
    if process_group().size == 1 and not trial_is_cheap(trainer):
        with suppress(RuntimeError, ValueError):
            return estimate_from_shapes(trainer, progress)
    return _estimate_by_trial(trainer, progress)


def estimate_from_shapes(trainer: Trainer, progress: Callable[[int, int], None] = lambda done, of: None) -> Plan:
    """Plans a game from the shapes of its tensors alone; as `estimate`, which calls it where trials would cost much."""
    cost = measure_shapes(trainer, progress)
    plan = _plan(trainer, cost.each, cost.turn, cost.waiting, cost.drawing)
    micro = min(plan.rows, trainer.config.micro_batch or plan.rows)
    return replace(plan, micro=micro, apart=cost.apart, from_shapes=True)


def _estimate_by_trial(trainer: Trainer, progress: Callable[[int, int], None]) -> Plan:
    model = trainer.model
    try:
        progress(0, 3)
        one = measure_rowwise(trainer)
        progress(1, 3)
        drawing = LinearFit.through(*(measure_drawing(model, n) for n in (1, 2)))
    except torch.OutOfMemoryError as error:
        sizes = [format_size(n) for n in (count_bytes(model.weights.values()), _trained(trainer))]
        said = f"{sizes[0]} of weights and {sizes[1]} of what learns"
        raise DoesNotFit(f"not even one row at once fits on {model.device} beside {said}; {LESS}") from error
    least = _plan(trainer, one.each, LinearFit(one.turn, 0), one.waiting, drawing)
    progress(2, 3)
    try:
        plan = _by_more(trainer, least, one)
    except torch.OutOfMemoryError as error:
        said = f"with --micro-batch 1 it would need {format_size(least.need)}; {LESS} too"
        raise DoesNotFit(f"not even two rows at once fit on {model.device}; {said}\n{least.table()}") from error
    progress(3, 3)
    return plan


def _plan(trainer: Trainer, each: int, turn: LinearFit, waiting: float, drawing: LinearFit) -> Plan:
    """The plan with one row at once; `each` rows in the student's pass for one of each term."""
    model, takes = trainer.model, _takes(trainer)
    resting, scales = list_resting(model), list_scales(model.network) if model.quantised else []
    return Plan(
        weights=count_bytes([*(t for t in model.weights.values() if t.device == model.device), *resting, *scales]),
        resting=0 if trainer.context.trains_text_encoder else count_bytes(resting),
        trained=_trained(trainer),
        kept=_kept(trainer, takes) + _stored(trainer, takes) + sum(each.held_bytes for each in trainer.learners),
        turn=turn,
        drawing=drawing,
        rows=each * trainer.config.batch,
        micro=1,
        waiting=waiting,
        apart=0,
        **_drawn(trainer, takes),
        recorded=sum(t.cache_bytes + t.image_bytes for t in takes),
        drawn=sum(t.drawn for t in takes),
        notes=tuple(each.about for each in trainer.learners if each.about),
    )


def _by_more(trainer: Trainer, least: Plan, one: RowwiseCost) -> Plan:
    """The plan at the run's own rows at once, from that of one: by a turn that goes by twos, and by a whole one."""
    micro = min(least.rows, trainer.config.micro_batch or least.rows)
    if micro == 1 < least.rows:
        return least
    slope = 0 if micro == 1 else max(0, measure_step(trainer, 2 * one.terms, 2)[0] - one.larger + one.waiting)
    fixed = one.turn - slope
    if micro < least.rows:
        return replace(least, turn=LinearFit(fixed, slope), micro=micro)
    whole = measure_step(trainer, one.terms)[0] - slope * one.terms * one.each
    return replace(least, turn=LinearFit(whole, slope), micro=micro, apart=round(max(0, fixed - whole)))


def require_fit(plan: Plan, limit: int | None, others: Callable[[], Mapping[str, Plan]]) -> None:
    """Raises DoesNotFit where `limit` bytes are too few, with the plan and with the other plans that would fit.

    Args:
        limit: bytes that the run may take; None refuses nothing.
        others: further plans, by the flags that bring them about; called only where this plan does not fit.
    """
    if limit is None or plan.need * SPARE <= limit:
        return
    found = others()
    fits = [f"{flags} ({format_size(other.need)})" for flags, other in found.items() if other.need * SPARE <= limit]
    least = min((plan, *found.values()), key=lambda p: p.need)
    would = (
        f"it would fit with {' or with '.join(fits)}" if fits else f"the least by flags is {format_size(least.need)}"
    )
    raise DoesNotFit(
        f"this run needs {format_size(plan.need)} and some to spare, {format_size(round(plan.need * SPARE))} in all; "
        f"there are {format_size(limit)}\n{plan.table()}\n{would}"
    )


def suggest_lighter(trainer: Trainer, plan: Plan) -> dict[str, Plan]:
    """Finds plans that need less, by their flags; each has the flags before it too."""
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
    if last.sampling > last.learning and (fewer := _drawn_singly(trainer, last)).pictures < last.pictures:
        flags, last = f"{flags} --draw-batch 1".strip(), fewer
        found[flags] = last
    if plan.resting and trainer.model.device.type == "cuda":
        flags = f"{flags} --offload".strip()
        found[flags] = replace(last, weights=last.weights - plan.resting)
    return found


def _drawn_singly(trainer: Trainer, plan: Plan) -> Plan:
    """The plan where what a training draws is drawn picture by picture."""
    before, trainer.model.draw_batch = trainer.model.draw_batch, 1
    try:
        return replace(plan, **_drawn(trainer, _takes(trainer)))
    finally:
        trainer.model.draw_batch = before


def _drawn(trainer: Trainer, takes: Sequence[MemoryFootprint]) -> dict[str, Any]:
    """How many pictures are drawn together, and the bytes recorded meanwhile beyond those that are kept anyway."""
    traced = max((t.trace_bytes for t in takes), default=0) - _stored(trainer, takes)
    return {"pictures": max((t.images_at_once for t in takes), default=0), "traced": max(0, traced)}


def _takes(trainer: Trainer) -> list[MemoryFootprint]:
    """What each source's drawing takes."""
    return [source.estimate_footprint(trainer.context) for source in trainer.sources()]


def _trained(trainer: Trainer) -> int:
    """Bytes of what learns and of Adam's moments; twice where a balance with inner steps puts all of it aside."""
    learning = [tensor for learner in trainer.learners for tensor in learner.learning()]
    moments = 2 * sum(tensor.numel() for tensor in learning) * trainer.config.moments // 8
    aside = count_bytes(learning) + moments if trainer.balance.inner else 0
    return count_bytes(list_tensors(trainer)[len(trainer.model.weights) :]) + moments + aside


def _stored(trainer: Trainer, takes: Sequence[MemoryFootprint]) -> int:
    """Bytes of recordings that lie on the device: on a CPU what the store's bound lets, on a GPU none."""
    here = trainer.model.device.type == "cpu"
    return min(sum(t.cache_bytes for t in takes), trainer.model.recordings.bound) if here else 0


def _kept(trainer: Trainer, takes: Sequence[MemoryFootprint]) -> int:
    """Bytes of the last good state and of pictures that lie on the device: on a GPU none."""
    if trainer.model.device.type != "cpu":
        return 0
    return count_bytes(trainer.update.deltas().values()) + sum(t.image_bytes for t in takes)


def list_resting(model: Model) -> list[Tensor]:
    """Lists what lies on the device of the parts that rest while a denoiser learns: text encoders and autoencoder."""
    parts = [getattr(model.pipeline, name, None) for name in (*ENCODERS, "vae")]
    lying = [t for part in parts if part is not None for t in (*part.parameters(), *part.buffers())]
    return [tensor for tensor in lying if tensor.device == model.device]
