"""Pulls the target's prediction to the anchor's and away from its own, until it is nearer to the anchor's (GEM).

L = mean over rows of relu(d(v_th(x_t, c), v*(x_t, c_anchor)) - eta d(v_th(x_t, c), v*(x_t, c))) with d the mean squared
error (Grebe et al., "Geometric Erasure by Contrastive Velocity Matching in Rectified Flows", ICML 2026, arXiv
2606.00140). Only the abstract and a summary of the formula could be read: d, its weight, and the hinge for each row by
itself are our reconstruction. Without an anchor the target becomes the empty prompt. A row whose hinge is 0 has no
gradient, so that the training stops changing it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from ...functional.losses import weighted_errors
from ...functional.schedules import Space
from ..interfaces import Context, LossRole, Query, Source, Step, Term


@final
class GEM(Term):
    """GEM's objective, at states of `source`, measured in `space`.

    Args:
        source: gives the states.
        eta: the weight of the distance from the teacher's own prediction for the target.
        space: the space of the squared error.
    """

    role: LossRole = "erase"

    def __init__(self, source: Source, eta: float, space: Space) -> None:
        if eta <= 0:
            raise ValueError(f"eta must be above 0, got {eta}: at 0 the target becomes the anchor, which ac does")
        self.source, self.eta = source, eta
        self.space: Space = space

    def prepare(self, context: Context) -> None:
        self.source.expect(context.list_all_target_prompts())

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        prompts = context.list_target_prompts(step)
        anchor = context.erasure.anchor
        cond = context.model.encode(prompts)
        states = self.source.sample_states(context, step, prompts, cond)
        anchors = context.fill_templates(step, [anchor] * len(prompts))
        goal = context.model.encode(anchors) if anchor else context.uncond
        return {
            "student": Query(states, cond, "student", prompts=prompts),
            "anchor": Query(states, goal, "teacher", known="" if anchor else "eps_0"),
            "target": Query(states, cond, "teacher", known="eps_c"),
        }

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = context.weigh_loss(queries["student"].states.t, self.space)
        pull = weighted_errors(predictions["student"], predictions["anchor"], weight)
        push = weighted_errors(predictions["student"], predictions["target"], weight)
        return (pull - self.eta * push).relu().mean()
