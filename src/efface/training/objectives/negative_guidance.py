"""Negative guidance: the prediction for the target moves to the other side of the unconditional one (ESD).

L = || eps_th(x_t, c) - [eps*(x_t, "") - eta (eps*(x_t, c) - eps*(x_t, ""))] ||^2, arXiv 2303.07345, eq. 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from ...functional.losses import negative_guidance, weighted_mse
from ...functional.schedules import Space
from ..interfaces import LossRole, Query, Source, Step, Term
from ..trainer import Trainer


@final
class NegativeGuidance(Term):
    """ESD's objective, at states of `source`, measured in `space`."""

    role: LossRole = "erase"

    def __init__(self, source: Source, eta: float, space: Space) -> None:
        self.source, self.eta = source, eta
        self.space: Space = space

    def prepare(self, trainer: Trainer) -> None:
        self.source.expect(trainer.targets())

    def queries(self, trainer: Trainer, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not trainer.update:
            return None
        prompts = trainer.prompts(step, [trainer.erasure.targets[i] for i in step.targets])
        cond = trainer.model.encode(prompts)
        states = self.source.sample_states(trainer, step, prompts, cond)
        return {
            "student": Query(states, cond, "student", prompts=prompts),
            "eps_c": Query(states, cond, "teacher", known="eps_c"),
            "eps_0": Query(states, trainer.uncond, "teacher", known="eps_0"),
        }

    def loss(self, trainer: Trainer, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        target = negative_guidance(predictions["eps_0"], predictions["eps_c"], self.eta)
        return weighted_mse(predictions["student"], target, trainer.weight(queries["student"].states.t, self.space))
