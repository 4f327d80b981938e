"""Fixed prompts are held in place: L = || eps_th(x_t, c) - eps*(x_t, c) ||^2 at states under c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from ...functional.losses import weighted_mse
from ...functional.schedules import Space
from ..interfaces import Ask, Role, Source, Step, Term
from ..trainer import Trainer


@final
class Prompts(Term):
    """Some of the prompts each turn, drawn evenly."""

    role: Role = "keep"

    def __init__(self, source: Source, prompts: Sequence[str], space: Space) -> None:
        if not prompts:
            raise ValueError("no prompts to preserve; name at least one")
        self.source, self.prompts = source, tuple(prompts)
        self.space: Space = space

    def prepare(self, trainer: Trainer) -> None:
        self.source.expect(self.prompts)

    def asks(self, trainer: Trainer, step: Step) -> Mapping[str, Ask] | None:
        if step.learner is not trainer.update:
            return None
        picks = torch.randint(len(self.prompts), (len(step.targets),), generator=step.generator).tolist()
        prompts = [self.prompts[i] for i in picks]
        cond = trainer.model.encode(prompts)
        rows = self.source.rows(trainer, step, prompts, cond)
        return {
            "student": Ask(rows, cond, "student", prompts=prompts),
            "eps_c": Ask(rows, cond, "frozen", known="eps_c"),
        }

    def loss(self, trainer: Trainer, asks: Mapping[str, Ask], replies: Mapping[str, Tensor]) -> Tensor:
        weight = trainer.weight(asks["student"].rows.t, self.space)
        return weighted_mse(replies["student"], replies["eps_c"], weight)
