"""Anchor: the target is predicted as the anchor is (concept ablation).

L = || eps_th(x_t, c) - eps*(x_t, c_anchor) ||^2, arXiv 2303.13516, eq. 4, model-based. Here x_t lies on trajectories
under the target; the authors noise generated pictures of the anchor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import Tensor

from ..functional.losses import weighted_mse
from ..functional.schedules import Space
from ..game import Ask, Game, Role, Source, Term, Turn


@final
class Anchor(Term):
    """The frozen prediction under the request's anchor, at states of `source`, measured in `space`."""

    role: ClassVar[Role] = "erase"

    def __init__(self, source: Source, space: Space) -> None:
        self.source = source
        self.space: Space = space

    def asks(self, game: Game, turn: Turn) -> Mapping[str, Ask]:
        if turn.player is not game.update:
            return {}
        prompts = game.prompts(turn, [game.erasure.targets[i] for i in turn.targets])
        anchor = game.erasure.anchor
        anchors = game.prompts(turn, [anchor] * len(prompts)) if anchor else [""] * len(prompts)
        cond = game.model.encode(prompts)
        rows = self.source.rows(game, turn, prompts, cond)
        return {
            "student": Ask(rows, cond, "student"),
            "anchor": Ask(rows, game.model.encode(anchors), "frozen", known="" if anchor else "eps_0"),
        }

    def loss(self, game: Game, asks: Mapping[str, Ask], replies: Mapping[str, Tensor]) -> Tensor:
        weight = game.weight(asks["student"].rows.t, self.space)
        return weighted_mse(replies["student"], replies["anchor"], weight)
