"""Pushes the target's prediction away from that of a searched mixture of similar concepts (AGE).

L = || eps_th(z_e, c_e) - [eps*(z_e, c_t) - eta (eps*(z_e, c_e) - eps*(z_e, c_t))] ||^2, c_t = G(pi) . T (Bui et al.,
ICLR 2025, arXiv 2501.18950). In the authors' release c_t is detached here: pi learns from the preservation of c_t
alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from ...functional.losses import negative_guidance, weighted_mse
from ...functional.schedules import Space
from ..interfaces import Context, LossRole, Query, Source, Step, Term
from ..vocabulary_search import VocabularySearch


@final
class AdaptiveAnchor(Term):
    """AGE's objective, at states of `source`, measured in `space`.

    Args:
        source: gives the states.
        search: the search of the preservation, so that both terms use the same choice.
        eta: how far the target is pushed beyond the mixture's prediction.
        space: the space of the squared error.
    """

    role: LossRole = "erase"

    def __init__(self, source: Source, search: VocabularySearch, eta: float, space: Space) -> None:
        self.source, self.search, self.eta = source, search, eta
        self.space: Space = space

    def prepare(self, context: Context) -> None:
        self.source.expect(context.list_all_target_prompts())

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        prompts = context.list_target_prompts(step)
        cond = context.model.encode(prompts)
        states = self.source.sample_states(context, step, prompts, cond)
        return {
            "student": Query(states, cond, "student", prompts=prompts),
            "eps_c": Query(states, cond, "teacher", known="eps_c"),
            "eps_t": Query(states, self.search.select(context, step).cond.detach(), "teacher"),
        }

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        target = negative_guidance(predictions["eps_t"], predictions["eps_c"], self.eta)
        return weighted_mse(predictions["student"], target, context.weigh_loss(queries["student"].states.t, self.space))
