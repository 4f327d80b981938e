"""EAP: Erasing with Adversarial Preservation (Bui et al., NeurIPS 2024, arXiv 2410.15618).

min_th max_pi || eps_th(z, c_e) - [eps*(0) - eta (eps*(c_e) - eps*(0))] ||^2 + || eps_th(z', c_a) - eps*(z', c_a) ||^2,
c_a = G(pi) . T, both measured as x0 (weight (1 - ab)/ab over eps). Defaults: the code's for objects and artists; for
nudity `--weights noxattn --centres 50 --k-closest 200`. The code's pgd_num_steps is `search_turns` + 1. Each of several
targets has its own 100 candidates, as there. Differs: exact t; the common words are the tokenizer's first, not EN3K;
plurals of the target and phrases with it are no candidates, the code filters nothing; the k-means is exact, theirs is
Lloyd's from random starts; the choice of a target that a step does not ask about stays, while in theirs Adam's momentum
moves it on. `--margin` and `--search-gradient score` are ours: see `efface.training.preservation.adversarial`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..concept import Erasure
from ..functional.schedules import Space
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Term, Update
from ..training.objectives.negative_guidance import NegativeGuidance
from ..training.preservation.adversarial import Adversarial
from ..training.updates.dense import Dense
from ..training.vocabulary_search import SearchGradient
from .searching import SearchMethod
from .states import build_preservation_states, build_target_trajectories


@final
@dataclass(frozen=True, kw_only=True)
class EAP(SearchMethod):
    """Erases as ESD does, and preserves the word that the erasure damages most; concepts to keep are candidates of
    that search."""

    needs_uncond: ClassVar[bool] = True
    eta: float = 1.0
    """Strength of negative guidance: how far beyond the unconditional prediction the target is pushed."""
    space: Space = "x0"
    """The space in which squared errors are measured, which decides how much noisy timesteps count."""
    hard: bool = True
    """Choose one candidate (straight-through) rather than a mixture; a mixture needs the student's trajectories."""
    search_gradient: SearchGradient = "straight-through"
    """How the search learns: by the gradient through the chosen word's embedding, as published, or by the words'
    losses alone."""

    def terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        self.check_mixture(self.hard)
        search = self.search(model, erasure, self.hard, gradient=self.search_gradient)
        return (
            NegativeGuidance(build_target_trajectories(self, erasure), self.eta, self.space),
            Adversarial(build_preservation_states(self), search, self.space),
        )

    def update(self) -> Update:
        return Dense(self.weights, self.lr)

    def balance(self) -> Balance:
        return Sum(keep=self.keep_weight)
