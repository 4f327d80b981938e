"""Keeps fixed prompts: L = || eps_th(x_t, c) - eps*(x_t, c) ||^2 at states under c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from ...functional.losses import weighted_mse
from ...functional.schedules import Space
from ..interfaces import Context, LossRole, Query, Source, Step, Term


@final
class FixedPrompts(Term):
    """Keeps the predictions for prompts, of which each row takes one at random, at states of `source` under it."""

    role: LossRole = "keep"

    def __init__(self, source: Source, prompts: Sequence[str], space: Space) -> None:
        if not prompts:
            raise ValueError("there are no prompts to preserve; name at least one")
        self.source, self.prompts = source, tuple(prompts)
        self.space: Space = space

    def prepare(self, context: Context) -> None:
        self.source.expect(self.prompts)

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        picks = torch.randint(len(self.prompts), (len(step.targets),), generator=step.generator).tolist()
        prompts = [self.prompts[i] for i in picks]
        cond = context.model.encode(prompts)
        states = self.source.sample_states(context, step, prompts, cond)
        return {
            "student": Query(states, cond, "student", prompts=prompts),
            "eps_c": Query(states, cond, "teacher", known="eps_c"),
        }

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = context.weigh_loss(queries["student"].states.t, self.space)
        return weighted_mse(predictions["student"], predictions["eps_c"], weight)
