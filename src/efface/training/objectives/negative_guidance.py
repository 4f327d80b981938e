"""Negative guidance: moves the prediction for the target to the other side of the unconditional prediction (ESD).

L = || eps_th(x_t, c) - [eps*(x_t, "") - eta (eps*(x_t, c) - eps*(x_t, ""))] ||^2, arXiv 2303.07345, eq. 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final

from torch import Tensor

from ...functional.losses import negative_guidance, weighted_mse
from ...functional.schedules import Space
from ...models.cond import Cond
from ..interfaces import Context, LossRole, Query, Source, Step, Term

Beyond = Literal["empty", "rest"]
"""Beyond which prediction a target is pushed."""


def encode_rest(context: Context, step: Step) -> Cond:
    """The conditions of the n rows' prompts without the target: "a {} apple" gives "a apple"."""
    rests = [" ".join(prompt.split()) for prompt in context.fill_templates(step, [""] * len(step.templates))]
    return context.model.encode(rests)


@final
class NegativeGuidance(Term):
    """ESD's objective, at states of `source`, measured in `space`.

    Args:
        source: gives the states.
        eta: how far beyond the other prediction the target's is pushed.
        space: the space of the squared error.
        beyond: the other prediction: that of the empty prompt, or of the rest of the row's prompt.
    """

    role: LossRole = "erase"

    def __init__(self, source: Source, eta: float, space: Space, beyond: Beyond = "empty") -> None:
        if beyond not in ("empty", "rest"):
            raise ValueError(f"no prediction {beyond!r} to push the target beyond; there are empty, rest")
        self.source, self.eta, self.beyond = source, eta, beyond
        self.space: Space = space

    def prepare(self, context: Context) -> None:
        self.source.expect(context.list_all_target_prompts())

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        prompts = context.list_target_prompts(step)
        cond = context.model.encode(prompts)
        states = self.source.sample_states(context, step, prompts, cond)
        rest = encode_rest(context, step) if self.beyond == "rest" else None
        other = (
            Query(states, context.uncond, "teacher", known="eps_0") if rest is None else Query(states, rest, "teacher")
        )
        return {
            "student": Query(states, cond, "student", prompts=prompts),
            "eps_c": Query(states, cond, "teacher", known="eps_c"),
            "eps_0": other,
        }

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        target = negative_guidance(predictions["eps_0"], predictions["eps_c"], self.eta)
        return weighted_mse(predictions["student"], target, context.weigh_loss(queries["student"].states.t, self.space))
