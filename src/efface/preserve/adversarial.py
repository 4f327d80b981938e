"""The concept that is damaged most right now is held in place, searched in a vocabulary (EAP).

L = || eps_th(z, c_a) - eps*(z, c_a) ||^2 with c_a = G(pi) . T, maximised over pi, on trajectories under c_a (Bui et
al., arXiv 2410.15618). As in the authors' code, neither the trajectory nor the frozen prediction carries a gradient to
pi. The start noise is the objective's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from torch import Tensor

from ..functional.losses import weighted_mse
from ..functional.schedules import Space
from ..game import Ask, Game, Player, Role, Search, Source, Term, Turn


@final
class Adversarial(Term):
    """EAP's preservation, at states of `source`, measured in `space`."""

    role: Role = "keep"

    def __init__(self, source: Source, search: Search, space: Space) -> None:
        self.source, self.search = source, search
        self.space: Space = space

    def prepare(self, game: Game) -> None:
        self.search.prepare(game)

    def searches(self) -> Sequence[Player]:
        return (self.search,) if self.search.turns else ()

    def asks(self, game: Game, turn: Turn) -> Mapping[str, Ask] | None:
        if turn.player not in (game.update, self.search):
            return None
        pick = self.search.pick(game, turn)
        states = self.source.rows(game, turn, pick.words, pick.cond)
        known = "eps_c" if self.search.choice.single else ""
        return {
            "student": Ask(states, pick.cond, "student"),
            "eps_c": Ask(states, pick.cond.detach(), "frozen", known=known),
        }

    def loss(self, game: Game, asks: Mapping[str, Ask], replies: Mapping[str, Tensor]) -> Tensor:
        weight = game.weight(asks["student"].rows.t, self.space)
        return weighted_mse(replies["student"], replies["eps_c"], weight)

    def notes(self) -> dict[str, Any]:
        return self.search.notes()
