"""The target becomes what the search chose, a mixture of concepts near it (AGE).

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
from ..interfaces import LossRole, Query, Source, Step, Term
from ..trainer import Trainer
from ..vocabulary_search import VocabularySearch


@final
class AdaptiveAnchor(Term):
    """AGE's objective, at states of `source`, measured in `space`; `search` is the preservation's."""

    role: LossRole = "erase"

    def __init__(self, source: Source, search: VocabularySearch, eta: float, space: Space) -> None:
        self.source, self.search, self.eta = source, search, eta
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
            "eps_t": Query(states, self.search.select(trainer, step).cond.detach(), "teacher"),
        }

    def loss(self, trainer: Trainer, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        target = negative_guidance(predictions["eps_t"], predictions["eps_c"], self.eta)
        return weighted_mse(predictions["student"], target, trainer.weight(queries["student"].states.t, self.space))
