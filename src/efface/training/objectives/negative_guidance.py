"""Negative guidance: moves the prediction for the target to the other side of the unconditional prediction (ESD).

L = || eps_th(x_t, c) - [eps*(x_t, "") - eta (eps*(x_t, c) - eps*(x_t, ""))] ||^2, arXiv 2303.07345, eq. 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from ...functional.losses import negative_guidance, weighted_mse
from ...functional.schedules import Space
from ..interfaces import Context, LossRole, Query, Source, Step, Term


@final
class NegativeGuidance(Term):
    """ESD's objective, at states of `source`, measured in `space`."""

    role: LossRole = "erase"

    def __init__(self, source: Source, eta: float, space: Space) -> None:
        self.source, self.eta = source, eta
        self.space: Space = space

    def prepare(self, context: Context) -> None:
        self.source.expect(context.all_target_prompts())

    def queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        prompts = context.target_prompts(step)
        cond = context.model.encode(prompts)
        states = self.source.sample_states(context, step, prompts, cond)
        return {
            "student": Query(states, cond, "student", prompts=prompts),
            "eps_c": Query(states, cond, "teacher", known="eps_c"),
            "eps_0": Query(states, context.uncond, "teacher", known="eps_0"),
        }

    def loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        target = negative_guidance(predictions["eps_0"], predictions["eps_c"], self.eta)
        return weighted_mse(
            predictions["student"], target, context.loss_weight(queries["student"].states.t, self.space)
        )
