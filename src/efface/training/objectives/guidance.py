"""Changes only the classifier-guidance term (All but One, Hong et al., AAAI 2024, arXiv 2312.12807).

g_th(x_t, c) = eps_th(x_t, c) - eps_th(x_t, ""); L = || g_th(x_t, c_e) - sg G ||^2 with G = g*(x_t, c_alt) where an
alternative is given, 0 to neutralise, -eta g*(x_t, c_e) to push away. Only the paper's abstract could be read: this
loss is our reconstruction. With eps_th("") = eps*("") it is ESD's loss, or concept ablation's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final

import torch
from torch import Tensor

from ...functional.losses import weighted_mse
from ...functional.schedules import Space
from ..interfaces import Context, LossRole, Query, Source, Step, Term

Goal = Literal["alternative", "neutral", "negative"]
Aim = Literal["auto", "alternative", "neutral", "negative"]
"""A goal as a setting: "auto" is the alternative if the request has an anchor, else negative."""


def choose_goal(aim: Aim, anchor: str) -> Goal:
    """The goal for a request with this anchor; ValueError where the goal needs one, or has no use for it."""
    if aim == "alternative" and not anchor:
        raise ValueError("the goal 'alternative' needs one: name an anchor, or choose neutral or negative")
    if aim in ("neutral", "negative") and anchor:
        raise ValueError(f"the goal {aim!r} has no use for an anchor ({anchor!r}); leave it out, or choose alternative")
    return ("alternative" if anchor else "negative") if aim == "auto" else aim


@final
class Guidance(Term):
    """ABO's objective, at states of `source`, measured in `space`.

    Args:
        source: gives the states.
        goal, eta: what the guidance becomes, and how far "negative" reverses it.
        detach: whether eps_th("") within g_th is detached, so that changing it cannot lower this loss.
        space: the space of the squared error.
    """

    role: LossRole = "erase"

    def __init__(self, source: Source, goal: Goal, eta: float, detach: bool, space: Space) -> None:
        if goal not in ("alternative", "neutral", "negative"):
            raise ValueError(f"no goal {goal!r}; there are alternative, neutral, negative")
        self.source, self.goal, self.eta, self.detach = source, goal, eta, detach
        self.space: Space = space

    def prepare(self, context: Context) -> None:
        self.source.expect(context.list_all_target_prompts())

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        prompts = context.list_target_prompts(step)
        cond = context.model.encode(prompts)
        states = self.source.sample_states(context, step, prompts, cond)
        empty = [""] * len(prompts)
        queries = {
            "student_c": Query(states, cond, "student", prompts=prompts),
            "student_0": Query(states, context.uncond, "student", prompts=empty),
            "eps_0": Query(states, context.uncond, "teacher", known="eps_0"),
        }
        if self.goal == "alternative":
            others = context.fill_templates(step, [context.erasure.anchor] * len(prompts))
            queries["eps_goal"] = Query(states, context.model.encode(others), "teacher")
        if self.goal == "negative":
            queries["eps_goal"] = Query(states, cond, "teacher", known="eps_c")
        return queries

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        student_0 = predictions["student_0"].detach() if self.detach else predictions["student_0"]
        moved = predictions["student_c"] - student_0
        sign = {"alternative": 1.0, "neutral": 0.0, "negative": -self.eta}[self.goal]
        goal = sign * (predictions["eps_goal"] - predictions["eps_0"]) if sign else torch.zeros_like(moved)
        return weighted_mse(moved, goal, context.weigh_loss(queries["student_c"].states.t, self.space))
