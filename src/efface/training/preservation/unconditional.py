"""Keeps the unconditional prediction (All but One): L = || eps_th(x_t, "") - eps*(x_t, "") ||^2.

If both terms have one source, wrapped in `Shared`, they are evaluated at the same states, and no prediction is made
twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from ...functional.losses import weighted_mse
from ...functional.schedules import Space
from ..interfaces import Context, LossRole, Query, Source, Step, Term


@final
class Unconditional(Term):
    """Keeps the prediction for the empty prompt, at states of `source` under the target."""

    role: LossRole = "keep"

    def __init__(self, source: Source, space: Space) -> None:
        self.source = source
        self.space: Space = space

    def prepare(self, context: Context) -> None:
        self.source.expect(context.list_all_target_prompts())

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        prompts = context.list_target_prompts(step)
        states = self.source.sample_states(context, step, prompts, context.model.encode(prompts))
        return {
            "student": Query(states, context.uncond, "student", prompts=[""] * len(prompts)),
            "eps_0": Query(states, context.uncond, "teacher", known="eps_0"),
        }

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        return weighted_mse(
            predictions["student"], predictions["eps_0"], context.weigh_loss(queries["student"].states.t, self.space)
        )
