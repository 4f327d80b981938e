"""A wrong noise is learned on pictures of the target: the current answer to another prompt, or uniform noise.

L_f = || eps_th(x_t, c_f) - eps_f ||^2 with eps_f = sg eps_th(x_t, c_m), c_m another concept (random label; SalUn and
EraseDiff_rl), or eps_f ~ U[0, 1)^d (EraseDiff_noise), x_t the target's pictures, noised. arXiv 2401.05779, 2310.12508.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, final

import torch
from torch import Tensor

from ...functional.losses import weighted_mse
from ...functional.schedules import Space, convert
from ..interfaces import Ask, Role, Rows, Source, Term, Turn
from ..trainer import Game

Wrong = Literal["label", "uniform", "uniform-noised"]


@final
class WrongNoise(Term):
    """EraseDiff's objective, at states of `source`, measured in `space`.

    Args:
        labels: prompts of which one a turn is c_m.
        wrong: "label"; "uniform", of the target alone; "uniform-noised", with x_t made of the same uniform noise, as in
            the authors' code: then `source` must noise uniformly.
    """

    role: Role = "erase"

    def __init__(self, source: Source, labels: Sequence[str], wrong: Wrong, space: Space) -> None:
        if wrong not in ("label", "uniform", "uniform-noised"):
            raise ValueError(f"no wrong noise {wrong!r}; there are label, uniform, uniform-noised")
        if wrong == "label" and not labels:
            raise ValueError("a random label needs another concept to take it from; give an anchor")
        self.source, self.labels = source, tuple(labels)
        self.space: Space = space
        self.wrong: Wrong = wrong

    def prepare(self, game: Game) -> None:
        self.source.expect(game.targets())

    def asks(self, game: Game, turn: Turn) -> Mapping[str, Ask] | None:
        if turn.player is not game.update:
            return None
        prompts = game.prompts(turn, [game.erasure.targets[i] for i in turn.targets])
        cond = game.model.encode(prompts)
        rows = self.source.rows(game, turn, prompts, cond)
        if self.wrong == "uniform-noised" and "noise" not in rows.known:
            raise ValueError("'uniform-noised' learns the noise that was added to pictures; trajectories have none")
        if self.wrong == "label":
            label = self.labels[int(torch.randint(len(self.labels), (), generator=turn.rng))]
            other = [label] * len(prompts)
            wrong = Ask(rows, game.model.encode(other), "student", prompts=other)
        else:
            if self.wrong == "uniform":
                noise = torch.rand(rows.x.shape, generator=turn.rng).to(rows.x)
                said = convert(noise, rows.x, game.model.noise_level(rows.t), "eps", game.model.space)
                rows = Rows(rows.x, rows.t, {"noise": said})
            wrong = Ask(rows, cond, "frozen", known="noise")
        return {"student": Ask(rows, cond, "student", prompts=prompts), "wrong": wrong}

    def loss(self, game: Game, asks: Mapping[str, Ask], replies: Mapping[str, Tensor]) -> Tensor:
        weight = game.weight(asks["student"].rows.t, self.space)
        return weighted_mse(replies["student"], replies["wrong"].detach(), weight)
