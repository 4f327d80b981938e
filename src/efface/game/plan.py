"""What an erasure will take, said before it starts, and which flag would make it fit.

need = weights + trained + max(turn(m), drawing(d)) on the device: weights are all parameters of the model; trained are
the tensors that learn and Adam's two moments of each; turn(m) is what one turn adds with m rows at once in the
student's pass, drawing(d) what a step of drawing d pictures adds. Both are straight lines in their rows, laid through
two passes that are really made, of two rows and four or of one and two, at states of zeros: nothing is drawn for
it. Two more, whose rows go one after the other, tell what a row takes that waits. Recordings lie in the host's memory.
What kernels take inside themselves is not seen; `SPARE` allows for it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from ..models.base import Model
from ..models.cond import Cond
from .loop import Game, gradients
from .memory import size
from .protocols import Rows, Source, Term, Turn
from .tally import Tally, size_of

SPARE = 1.1
"""How much more than planned must be free, for workspaces, fragments and the libraries' own."""


class DoesNotFit(ValueError):
    """A run needs more memory than it may have; the message holds the plan and what would make it fit."""


@final
@dataclass(frozen=True)
class Line:
    """Bytes that a pass adds, as a straight line in its rows."""

    fixed: float
    each: float

    def __call__(self, rows: int) -> int:
        return round(max(0.0, self.fixed) + self.each * rows)

    @staticmethod
    def through(one: int, two: int, rows: int = 1) -> Line:
        """From a pass of `rows` rows and one of twice as many."""
        return Line(2 * one - two, (two - one) / rows)


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
    """Bytes that are recorded of these meanwhile."""
    recorded: int
    """Bytes of recordings, in the host's memory."""

    @property
    def need(self) -> int:
        """Bytes on the device at the worst moment."""
        return self.weights + self.trained + max(self.learning, self.sampling)

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
            (f"a turn, {self.micro} of {self.rows} rows at once", self.learning),
            (f"or drawing {self.pictures} at once", self.sampling),
            ("at most, on the device", self.need),
            ("recordings, in memory or on disk", self.recorded),
        ]
        return "\n".join(f"  {name:<38} {size(n):>9}" for name, n in lines if n)


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
        DoesNotFit: those did not fit on the GPU.
    """
    model = game.model
    try:
        (two, rows), (four, _) = (_turn_of(game, n) for n in (2, 4))
        few, many = (_turn_of(game, n, max(1, rows // 2))[0] for n in (2, 4))
        draws = [_drawing_of(model, n) for n in (1, 2)]
    except torch.OutOfMemoryError as error:
        less = "--checkpointing, --offload, --dtype bf16 and fewer --weights take less"
        raise DoesNotFit(f"not even four rows at once fit on {model.device}; {less}") from error
    batch, micro = game.settings["batch"], game.settings["micro_batch"]
    each = max(1, rows // 2)
    turn, waiting = Line.through(two, four, 2 * each), max(0, many - few) / (2 * each)
    student = rows // 2 * batch
    learning = [t for player in game.players for t in player.learning()]
    numbers, beside = sum(t.numel() for t in learning), _tensors(game)[len(model.weights) :]
    moments = 2 * numbers * game.settings.get("moments", 32) // 8
    takes = [s.takes(game) for s in {id(s): s for term in game.terms for s in _sources(term).values()}.values()]
    resting = _resting(model)
    return Plan(
        weights=size_of([*(t for t in model.weights.values() if t.device == model.device), *resting]),
        resting=0 if game.live else size_of(resting),
        # A balance with inner steps puts all of it aside meanwhile.
        trained=size_of(beside) + moments + (size_of(learning) + moments if game.balance.inner else 0),
        turn=turn,
        drawing=Line.through(*draws),
        rows=student,
        micro=min(student, micro) if micro else student,
        waiting=waiting,
        apart=max(0, few - turn(each) - round(waiting * each)),
        pictures=max((t.pictures for t in takes), default=0),
        traced=max((t.traced for t in takes), default=0),
        recorded=sum(t.kept for t in takes),
    )


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
    network: Any = game.model.pipeline.unet
    if not network.is_gradient_checkpointing:
        network.enable_gradient_checkpointing()
        try:
            flags, last = f"{flags} --checkpointing".strip(), replace(planned(game), micro=last.micro)
        finally:
            network.disable_gradient_checkpointing()
        found[flags] = last
    if plan.resting and game.model.device.type == "cuda":
        flags = f"{flags} --offload".strip()
        found[flags] = replace(last, weights=last.weights - plan.resting)
    return found


def _resting(model: Model) -> list[Tensor]:
    """What lies on the device of the parts that rest while a denoiser learns: text encoders and autoencoder."""
    parts = [getattr(model.pipeline, name, None) for name in ("text_encoder", "text_encoder_2", "vae")]
    tensors = [t for part in parts if part is not None for t in (*part.parameters(), *part.buffers())]
    return [tensor for tensor in tensors if tensor.device == model.device]


# Passes that are made to be measured.


@final
class Blank(Source):
    """States of zeros, with everything known; the same for all who ask within a turn, as the true source is."""

    def __init__(self) -> None:
        self.last: tuple[Turn, tuple[str, ...], Rows] | None = None

    def rows(self, game: Game, turn: Turn, prompts: Sequence[str], cond: Cond) -> Rows:
        asked = tuple(prompts)
        if self.last is None or self.last[0] is not turn or self.last[1] != asked:
            x = torch.zeros(len(asked), *game.model.latent_shape, device=game.model.device, dtype=game.model.dtype)
            known = {name: torch.zeros_like(x) for name in ("eps_c", "eps_0", "noise")}
            middle = len(game.model.alphas_bar) // 2
            self.last = (turn, asked, Rows(x, torch.full((len(asked),), middle, device=x.device), known))
        return self.last[2]


def _sources(term: Term) -> dict[str, Source]:
    return {name: value for name, value in vars(term).items() if isinstance(value, Source)}


@contextmanager
def _blanked(terms: Sequence[Term]) -> Iterator[None]:
    """Within, the terms' sources draw nothing; those that were one stay one."""
    before = [(term, _sources(term)) for term in terms]
    blanks = {id(source): Blank() for _, sources in before for source in sources.values()}
    try:
        for term, sources in before:
            for name, source in sources.items():
                setattr(term, name, blanks[id(source)])
        yield
    finally:
        for term, sources in before:
            for name, source in sources.items():
                setattr(term, name, source)


def _turn_of(game: Game, n: int, micro: int = 0) -> tuple[int, int]:
    """Bytes that a turn of the weights with n rows adds, `micro` at once or all; and those in the student's pass."""
    small = copy.copy(game)
    small.settings = {**game.settings, "batch": n, "micro_batch": micro}
    with _blanked(game.terms):
        rows = _student_rows(small, small.look(0, salt=1))
        with Tally(_tensors(game)) as tally, small.losses(small.look(0, salt=1)) as losses:
            grad_of = gradients(game.update.params(), game.balance.passes)
            game.balance(losses, grad_of, 0.0 if game.balance.inner else None)
    return tally.peak, rows


def _student_rows(game: Game, turn: Turn) -> int:
    """Rows that the student predicts in a turn, what several terms ask counted once."""
    asked = [asks.values() for term in game.terms if (asks := term.asks(game, turn)) is not None]
    asks = {(id(ask.rows), id(ask.cond)): ask for some in asked for ask in some if ask.who == "student"}
    return sum(len(ask.rows.x) for ask in asks.values())


def _tensors(game: Game) -> list[Tensor]:
    """The weights, and what learns, in the network's own dtype and as masters."""
    beside = (tensor for player in game.players for tensor in (*player.params(), *player.learning()))
    return [*game.model.weights.values(), *beside]


def _drawing_of(model: Model, n: int) -> int:
    """Bytes that one guided step of drawing n pictures adds."""
    nothing = model.encode([""])
    x = torch.zeros(n, *model.latent_shape, device=model.device, dtype=model.dtype)
    with torch.no_grad(), Tally(model.weights.values()) as tally:
        model.predict(x, 1, nothing.expand(n), nothing.expand(n))
    return tally.peak
