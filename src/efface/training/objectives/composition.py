"""Composes directions: away from everything that brings the target back, and towards its contexts (STEREO).

L = || eps_th(x_t, c) - [eps* - push mean_n (eps*(n) - eps*) + pull (eps*(a) - eps*)] ||^2, where eps*(n) stands for
eps*(x_t, n) and eps* for eps*(x_t, ""). c is one of the negatives n, which are prompts or learned embeddings, and a is
one of the anchors (Srivatsan et al., CVPR 2025, arXiv 2408.16807, after Liu et al., ECCV 2022, arXiv 2206.01714).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from ...functional.losses import weighted_mse
from ...functional.schedules import Space
from ...models.cond import Cond
from ..interfaces import Context, LossRole, Query, Source, Step, Term


@final
class Composition(Term):
    """STEREO's objective, at states of `source`, measured in `space`.

    Args:
        source: gives the states.
        negatives: for each target, conditions of one row by name; their number is the same for all targets.
        anchors: for each target, prompts of which a row takes one at random; () for no pull.
        pull, push: weights of the direction to the anchor and of that away from the negatives.
        space: the space of the squared error.
    """

    role: LossRole = "erase"

    def __init__(
        self,
        source: Source,
        negatives: Sequence[Mapping[str, Cond]],
        anchors: Sequence[Sequence[str]],
        pull: float,
        push: float,
        space: Space,
    ) -> None:
        self.source, self.negatives, self.anchors = source, negatives, anchors
        self.pull, self.push = pull, push
        self.space: Space = space

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        own = [self.negatives[i] for i in step.targets]
        names = [_draw_one(list(conds), step) for conds in own]
        cond = Cond.cat([conds[name] for conds, name in zip(own, names, strict=True)])
        states = self.source.sample_states(context, step, names, cond)
        queries = {
            "student": Query(states, cond, "student"),
            "eps_0": Query(states, context.uncond, "teacher", known="eps_0"),
        }
        if self.push:
            away = zip(*(conds.values() for conds in own), strict=True)
            queries |= {f"push {k}": Query(states, Cond.cat(conds), "teacher") for k, conds in enumerate(away)}
        if self.anchors and self.pull:
            anchors = [_draw_one(self.anchors[i], step) for i in step.targets]
            queries["pull"] = Query(states, context.model.encode(anchors), "teacher")
        return queries

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        eps_0 = predictions["eps_0"]
        target, away = eps_0, [reply for name, reply in predictions.items() if name.startswith("push")]
        if away:
            target = target - self.push * (torch.stack(away).mean(dim=0) - eps_0)
        if "pull" in predictions:
            target = target + self.pull * (predictions["pull"] - eps_0)
        return weighted_mse(predictions["student"], target, context.weigh_loss(queries["student"].states.t, self.space))


def _draw_one(names: Sequence[str], step: Step) -> str:
    return names[int(torch.randint(len(names), (1,), generator=step.generator))]
