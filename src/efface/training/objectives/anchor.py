"""Anchor: the target is predicted as the anchor is (concept ablation).

L = || eps_th(x_t, c) - eps*(x_t, c_anchor) ||^2, arXiv 2303.13516, eq. 4, model-based. The authors' x_t are noised
pictures of the anchor, drawn by the model: `states="anchor"` with pictures as the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final

from torch import Tensor

from ...functional.losses import weighted_mse
from ...functional.schedules import Space
from ..interfaces import LossRole, Query, Source, Step, Term
from ..trainer import Trainer


@final
class Anchor(Term):
    """The frozen prediction under the request's anchor, at states of `source`, measured in `space`."""

    role: LossRole = "erase"

    def __init__(self, source: Source, space: Space, states: Literal["target", "anchor"] = "target") -> None:
        self.source, self.states = source, states
        self.space: Space = space

    def prepare(self, trainer: Trainer) -> None:
        self.source.expect(trainer.targets())

    def queries(self, trainer: Trainer, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not trainer.update:
            return None
        prompts = trainer.prompts(step, [trainer.erasure.targets[i] for i in step.targets])
        anchor = trainer.erasure.anchor
        anchors = trainer.prompts(step, [anchor] * len(prompts)) if anchor else [""] * len(prompts)
        cond, goal = trainer.model.encode(prompts), trainer.model.encode(anchors)
        if self.states == "anchor":
            states, known = self.source.sample_states(trainer, step, anchors, goal), "eps_c"
        else:
            states, known = self.source.sample_states(trainer, step, prompts, cond), "" if anchor else "eps_0"
        return {
            "student": Query(states, cond, "student", prompts=prompts),
            "anchor": Query(states, goal, "teacher", known=known),
        }

    def loss(self, trainer: Trainer, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = trainer.weight(queries["student"].states.t, self.space)
        return weighted_mse(predictions["student"], predictions["anchor"], weight)
