"""Small passes that are made to be measured: at states of zeros, so that nothing is drawn for them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from ..models.base import Model
from ..models.cond import Cond
from ..training.interfaces import Rows, Source, Term, Turn
from ..training.trainer import Game
from .tracker import Tally


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
class Blank(Source):
    """States of zeros, with everything known; the same for all who ask within a turn, as the true source is."""

    def __init__(self) -> None:
        self.last: tuple[Turn, tuple[str, ...], Rows] | None = None

    def rows(self, game: Game, turn: Turn, prompts: Sequence[str], cond: Cond) -> Rows:
        asked = tuple(prompts)
        if self.last is None or self.last[0] is not turn or self.last[1] != asked:
            x = torch.zeros(len(asked), *game.model.latent_shape, device=game.model.device, dtype=game.model.dtype)
            known = {name: torch.zeros_like(x) for name in ("eps_c", "eps_0", "noise")}
            middle = len(game.model.levels) // 2
            self.last = (turn, asked, Rows(x, torch.full((len(asked),), middle, device=x.device), known))
        return self.last[2]


@contextmanager
def _blanked(terms: Sequence[Term]) -> Iterator[None]:
    """Within, the terms' sources draw nothing; those that were one stay one."""
    before = [(term, term.sources()) for term in terms]
    blanks = {id(source): Blank() for _, own in before for source in own.values()}
    try:
        for term, own in before:
            for name, source in own.items():
                setattr(term, name, blanks[id(source)])
        yield
    finally:
        for term, own in before:
            for name, source in own.items():
                setattr(term, name, source)


@dataclass(frozen=True)
class Ones:
    """Turns whose rows go one by one."""

    terms: int
    """Rows of each term in the smaller turn; the larger has twice as many."""
    each: int
    """Rows in the student's largest pass for one of each term; a term that asks it nothing has passes of its own."""
    turn: float
    """Bytes that a turn of one row adds."""
    waiting: float
    """What each further row takes that waits."""
    larger: int
    """Bytes that the larger turn adds."""


def by_ones(game: Game) -> Ones:
    """Two turns, row by row."""
    n = min(2, game.settings["batch"])
    (few, rows), (many, _) = turn_of(game, n, 1), turn_of(game, 2 * n, 1)
    each = max(1, rows // n)
    waiting = max(0, many - few) / (n * each)
    return Ones(n, each, few - waiting * (n * each - 1), waiting, many)


def turn_of(game: Game, n: int, micro: int = 0) -> tuple[int, int]:
    """Bytes that a turn of the weights with n rows adds, `micro` at once or all; and rows in the largest pass."""
    small = copy.copy(game)
    small.settings = {**game.settings, "batch": n, "micro_batch": micro}
    with _blanked(game.terms):
        rows = _student_rows(small, small.look(0, salt=1))
        with Tally(tensors(game)) as tally:
            game.balance(partial(small.gradient, small.look(0, salt=1)), 0.0 if game.balance.inner else None)
    return tally.peak, rows


def _student_rows(game: Game, turn: Turn) -> int:
    """Rows in the largest pass of the student in a turn, what several terms ask counted once."""
    asked = game.asked(turn)
    each = [
        [ask for term, some in asked for ask in some.values() if term.role in roles] for roles in game.balance.passes
    ]
    once = [{(id(ask.rows), id(ask.cond)): ask for ask in some if ask.who == "student"} for some in each]
    return max(sum(len(ask.rows.x) for ask in asks.values()) for asks in once)


def tensors(game: Game) -> list[Tensor]:
    """The weights, and what learns, in the network's own dtype and as masters."""
    beside = (tensor for player in game.players for tensor in (*player.params(), *player.learning()))
    return [*game.model.weights.values(), *beside]


def drawing_of(model: Model, n: int) -> int:
    """Bytes that one guided step of drawing n pictures adds."""
    nothing = model.encode([""])
    x = torch.zeros(n, *model.latent_shape, device=model.device, dtype=model.dtype)
    with torch.no_grad(), Tally(model.weights.values()) as tally:
        model.predict(x, 1, nothing.expand(n), nothing.expand(n))
    return tally.peak
