"""What an erasure will take, said before it starts, and which flag would make it fit.

need = weights + trained + kept + max(turn(m), drawing(d)) on the device: weights are all parameters of the model;
trained are the tensors that learn and Adam's two moments of each; turn(m) is what one turn adds with m rows at once in
the student's pass, drawing(d) what a step of drawing d pictures adds; kept, on a CPU alone, are the last good state and
of recordings what the store holds in memory. Turn and drawing are straight lines in their rows, laid through passes
that are really made (`passes`), never with more rows at once in the student's pass than the run has: turns of two and
four rows of each term go row by row, one of four by twos, and one of at most two goes whole where the run's own do.
What kernels take inside themselves is not seen; `SPARE` allows for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from ..models.base import Model
from ..training.interfaces import Takes
from ..training.trainer import Game
from .machine import size
from .probe_steps import Line, Ones, by_ones, drawing_of, tensors, turn_of
from .tracker import size_of

SPARE = 1.1
"""How much more than planned must be free, for workspaces, fragments and the libraries' own."""
LESS = "--checkpointing, --offload, --dtype bf16 and fewer --weights take less"


class DoesNotFit(ValueError):
    """A run needs more memory than it may have; the message holds the plan and what would make it fit."""


@final
@dataclass(frozen=True)
class Plan:
    """Bytes and rows of a run."""

    weights: int
    """Of the model, on the device."""
    resting: int
    """Of them, those of encoders and decoder, which `--offload` would keep elsewhere."""
    trained: int
    """What learns, with Adam's moments."""
    kept: int
    """On a CPU: the last good state, pictures, and recordings as far as they are held in memory."""
    turn: Line
    """What a turn adds, by rows at once in the student's pass."""
    drawing: Line
    """What drawing adds, by pictures."""
    rows: int
    """In the student's pass, in a turn of the weights."""
    micro: int
    """Of them, at once."""
    waiting: float
    """What each of the others takes meanwhile."""
    apart: int
    """What it takes beside to go piece by piece, as gradients of two pieces that are summed."""
    pictures: int
    """Drawn together."""
    traced: int
    """Bytes that are recorded of these meanwhile, beyond those that are kept anyway."""
    recorded: int
    """Bytes of recordings, in the host's memory or on disk."""

    @property
    def need(self) -> int:
        """Bytes on the device at the worst moment."""
        return self.weights + self.trained + self.kept + max(self.learning, self.sampling)

    @property
    def learning(self) -> int:
        """Bytes that a turn adds."""
        pieces = self.apart if self.micro < self.rows else 0
        return self.turn(self.micro) + pieces + round(self.waiting * (self.rows - self.micro))

    @property
    def sampling(self) -> int:
        """Bytes that drawing adds."""
        return self.drawing(self.pictures) + self.traced if self.pictures else 0

    def table(self) -> str:
        """The plan, a line for each part."""
        lines = [
            ("weights of the model", self.weights),
            ("what learns, and Adam's moments", self.trained),
            ("the last good state, and recordings held", self.kept),
            (f"a turn, {self.micro} of {self.rows} rows at once", self.learning),
            (f"or drawing {self.pictures} at once", self.sampling),
            ("at most, on the device", self.need),
            ("recordings, in memory or on disk", self.recorded),
        ]
        return "\n".join(f"  {name:<40} {size(n):>9}" for name, n in lines if n)


def prepared(make: Callable[[], Game], device: torch.device) -> Game:
    """A game, set up; DoesNotFit where there is no room for what learns."""
    try:
        return make()
    except torch.OutOfMemoryError as error:
        less = "--dtype bf16, --offload, --moments 8 and fewer --weights take less"
        raise DoesNotFit(f"what learns does not fit on {device} beside the model; {less}") from error


def planned(game: Game) -> Plan:
    """The plan of a game that is set up; makes some small passes, and leaves everything as it was.

    Raises:
        DoesNotFit: those did not fit on the GPU; says what is known of the plan nevertheless.
    """
    model, takes = game.model, _takes(game)
    stored = _stored(game, takes)
    try:
        one, drawing = by_ones(game), Line.through(*(drawing_of(model, n) for n in (1, 2)))
    except torch.OutOfMemoryError as error:
        said = f"{size(size_of(model.weights.values()))} of weights and {size(_trained(game))} of what learns"
        raise DoesNotFit(f"not even one row at once fits on {model.device} beside {said}; {LESS}") from error
    resting = _resting(model)
    least = Plan(
        weights=size_of([*(t for t in model.weights.values() if t.device == model.device), *resting]),
        resting=0 if game.live else size_of(resting),
        trained=_trained(game),
        kept=_kept(game, takes) + stored,
        turn=Line(one.turn, 0),
        drawing=drawing,
        rows=one.each * game.settings["batch"],
        micro=1,
        waiting=one.waiting,
        apart=0,
        **_drawn(game, takes),
        recorded=sum(t.kept + t.held for t in takes),
    )
    try:
        return _by_more(game, least, one)
    except torch.OutOfMemoryError as error:
        said = f"with --micro-batch 1 it would need {size(least.need)}; {LESS} too"
        raise DoesNotFit(f"not even two rows at once fit on {model.device}; {said}\n{least.table()}") from error


def _by_more(game: Game, least: Plan, one: Ones) -> Plan:
    """The plan at the run's own rows at once, from that of one: by a turn that goes by twos, and by a whole one."""
    micro = min(least.rows, game.settings["micro_batch"] or least.rows)
    if micro == 1 < least.rows:
        return least
    slope = 0 if micro == 1 else max(0, turn_of(game, 2 * one.terms, 2)[0] - one.larger + one.waiting)
    fixed = one.turn - slope
    if micro < least.rows:
        return replace(least, turn=Line(fixed, slope), micro=micro)
    whole = turn_of(game, one.terms)[0] - slope * one.terms * one.each
    return replace(least, turn=Line(whole, slope), micro=micro, apart=round(max(0, fixed - whole)))


def demand(plan: Plan, limit: int | None, others: Callable[[], Mapping[str, Plan]]) -> None:
    """Raises DoesNotFit where `limit` bytes are too few: with the plan, and with those of the others that would fit.

    Args:
        others: further plans, by the flags that bring them about; asked for only then.
    """
    if limit is None or plan.need * SPARE <= limit:
        return
    found = others()
    fits = [f"{flags} ({size(other.need)})" for flags, other in found.items() if other.need * SPARE <= limit]
    least = min((plan, *found.values()), key=lambda p: p.need)
    would = f"it would fit with {' or with '.join(fits)}" if fits else f"the least by flags is {size(least.need)}"
    raise DoesNotFit(
        f"this run needs {size(plan.need)} and some to spare, {size(round(plan.need * SPARE))} in all; "
        f"there are {size(limit)}\n{plan.table()}\n{would}"
    )


def lighter(game: Game, plan: Plan) -> dict[str, Plan]:
    """Plans that need less, by their flags; each with those before it."""
    found: dict[str, Plan] = {}
    flags, last = "", plan
    if plan.micro > 1:
        flags, last = "--micro-batch 1", replace(plan, micro=1)
        found[flags] = last
    network: Any = game.model.network
    if not network.is_gradient_checkpointing:
        network.enable_gradient_checkpointing()
        try:
            flags, last = f"{flags} --checkpointing".strip(), replace(planned(game), micro=last.micro)
        finally:
            network.disable_gradient_checkpointing()
        found[flags] = last
    if last.sampling > last.learning and (fewer := _drawn_singly(game, last)).pictures < last.pictures:
        flags, last = f"{flags} --draw-batch 1".strip(), fewer
        found[flags] = last
    if plan.resting and game.model.device.type == "cuda":
        flags = f"{flags} --offload".strip()
        found[flags] = replace(last, weights=last.weights - plan.resting)
    return found


def _drawn_singly(game: Game, plan: Plan) -> Plan:
    """The plan where what a training draws is drawn picture by picture."""
    before, game.model.draw_batch = game.model.draw_batch, 1
    try:
        return replace(plan, **_drawn(game, _takes(game)))
    finally:
        game.model.draw_batch = before


def _drawn(game: Game, takes: Sequence[Takes]) -> dict[str, int]:
    """How many pictures are drawn together, and the bytes recorded meanwhile beyond those that are kept anyway."""
    traced = max((t.traced for t in takes), default=0) - _stored(game, takes)
    return {"pictures": max((t.pictures for t in takes), default=0), "traced": max(0, traced)}


def _takes(game: Game) -> list[Takes]:
    """What each source's drawing takes."""
    return [source.takes(game) for source in game.sources()]


def _trained(game: Game) -> int:
    """Bytes of what learns and of Adam's moments; twice where a balance with inner steps puts all of it aside."""
    learning = [tensor for player in game.players for tensor in player.learning()]
    moments = 2 * sum(tensor.numel() for tensor in learning) * game.settings.get("moments", 32) // 8
    aside = size_of(learning) + moments if game.balance.inner else 0
    return size_of(tensors(game)[len(game.model.weights) :]) + moments + aside


def _stored(game: Game, takes: Sequence[Takes]) -> int:
    """Bytes of recordings that lie on the device: on a CPU what the store's bound lets, on a GPU none."""
    return min(sum(t.kept for t in takes), game.model.recordings.bound) if game.model.device.type == "cpu" else 0


def _kept(game: Game, takes: Sequence[Takes]) -> int:
    """Bytes of the last good state and of pictures that lie on the device: on a GPU none."""
    if game.model.device.type != "cpu":
        return 0
    return size_of(game.update.payload().values()) + sum(t.held for t in takes)


def _resting(model: Model) -> list[Tensor]:
    """What lies on the device of the parts that rest while a denoiser learns: text encoders and autoencoder."""
    parts = [getattr(model.pipeline, name, None) for name in ("text_encoder", "text_encoder_2", "vae")]
    tensors = [t for part in parts if part is not None for t in (*part.parameters(), *part.buffers())]
    return [tensor for tensor in tensors if tensor.device == model.device]
