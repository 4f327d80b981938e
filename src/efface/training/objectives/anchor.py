"""Makes the student predict for the target what the teacher predicts for the anchor (concept ablation).

L = || eps_th(x_t, c) - eps*(x_t, c_anchor) ||^2, arXiv 2303.13516, eq. 4, model-based. The authors' x_t are noised
pictures of the anchor, drawn by the model: `states="anchor"` with pictures as the source. Their eps* is the student's
own prediction without its gradient, sg eps_th(x_t, c_anchor): `teacher="student"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final, get_args

from torch import Tensor

from ...concept import check_choice
from ...functional.losses import weighted_mse
from ...functional.schedules import Space
from ..interfaces import Context, LossRole, Query, Source, Step, Term

Teacher = Literal["frozen", "student"]


@final
class Anchor(Term):
    """The teacher's prediction under the request's anchor, at states of `source`, measured in `space`.

    Without an anchor the target becomes the empty prompt.

    Args:
        source: gives the states.
        space: the space of the squared error.
        states: whether the states are sampled under the target's prompt or under the anchor's.
        teacher: which model predicts for the anchor, without a gradient: the base, or the student of this step.
    """

    role: LossRole = "erase"

    def __init__(
        self,
        source: Source,
        space: Space,
        states: Literal["target", "anchor"] = "target",
        teacher: Teacher = "frozen",
    ) -> None:
        check_choice("teacher", teacher, get_args(Teacher))
        self.source, self.states = source, states
        self.teacher: Teacher = teacher
        self.space: Space = space

    def prepare(self, context: Context) -> None:
        anchor, templates = context.erasure.anchor, context.config.templates
        anchors = [template.format(anchor) for template in templates] if anchor else [""]
        self.source.expect(context.list_all_target_prompts() if self.states == "target" else anchors)

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        prompts = context.list_target_prompts(step)
        anchor = context.erasure.anchor
        anchors = context.fill_templates(step, [anchor] * len(prompts)) if anchor else [""] * len(prompts)
        cond, goal = context.model.encode(prompts), context.model.encode(anchors)
        if self.states == "anchor":
            states, known = self.source.sample_states(context, step, anchors, goal), "eps_c"
        else:
            states, known = self.source.sample_states(context, step, prompts, cond), "" if anchor else "eps_0"
        by_student = self.teacher == "student"
        return {
            "student": Query(states, cond, "student", prompts=prompts),
            "anchor": Query(states, goal, "student", prompts=anchors)
            if by_student
            else Query(states, goal, "teacher", known=known),
        }

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = context.weigh_loss(queries["student"].states.t, self.space)
        return weighted_mse(predictions["student"], predictions["anchor"].detach(), weight)
