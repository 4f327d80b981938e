"""The unconditional score is held in place (All but One): L = || eps_th(x_t, "") - eps*(x_t, "") ||^2.

Given the objective's own source, shared, it asks at the very same states, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from ...functional.losses import weighted_mse
from ...functional.schedules import Space
from ..interfaces import LossRole, Query, Source, Step, Term
from ..trainer import Trainer


@final
class Unconditional(Term):
    """At states of `source` on trajectories under the target."""

    role: LossRole = "keep"

    def __init__(self, source: Source, space: Space) -> None:
        self.source = source
        self.space: Space = space

    def queries(self, trainer: Trainer, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not trainer.update:
            return None
        prompts = trainer.prompts(step, [trainer.erasure.targets[i] for i in step.targets])
        states = self.source.sample_states(trainer, step, prompts, trainer.model.encode(prompts))
        return {
            "student": Query(states, trainer.uncond, "student", prompts=[""] * len(prompts)),
            "eps_0": Query(states, trainer.uncond, "teacher", known="eps_0"),
        }

    def loss(self, trainer: Trainer, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        return weighted_mse(
            predictions["student"], predictions["eps_0"], trainer.weight(queries["student"].states.t, self.space)
        )
