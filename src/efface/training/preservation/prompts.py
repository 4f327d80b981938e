"""Fixed prompts are held in place: L = || eps_th(x_t, c) - eps*(x_t, c) ||^2 at states under c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from ...functional.losses import weighted_mse
from ...functional.schedules import Space
from ..interfaces import LossRole, Query, Source, Step, Term
from ..trainer import Trainer


@final
class FixedPrompts(Term):
    """Some of the prompts each turn, drawn evenly."""

    role: LossRole = "keep"

    def __init__(self, source: Source, prompts: Sequence[str], space: Space) -> None:
        if not prompts:
            raise ValueError("no prompts to preserve; name at least one")
        self.source, self.prompts = source, tuple(prompts)
        self.space: Space = space

    def prepare(self, trainer: Trainer) -> None:
        self.source.expect(self.prompts)

    def queries(self, trainer: Trainer, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not trainer.update:
            return None
        picks = torch.randint(len(self.prompts), (len(step.targets),), generator=step.generator).tolist()
        prompts = [self.prompts[i] for i in picks]
        cond = trainer.model.encode(prompts)
        states = self.source.sample_states(trainer, step, prompts, cond)
        return {
            "student": Query(states, cond, "student", prompts=prompts),
            "eps_c": Query(states, cond, "teacher", known="eps_c"),
        }

    def loss(self, trainer: Trainer, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = trainer.weight(queries["student"].states.t, self.space)
        return weighted_mse(predictions["student"], predictions["eps_c"], weight)
