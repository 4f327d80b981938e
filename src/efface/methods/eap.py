"""EAP: Erasing with Adversarial Preservation (Bui et al., NeurIPS 2024, arXiv 2410.15618).

    min_th max_pi || eps_th(z, c_e) - [eps*(0) - eta (eps*(c_e) - eps*(0))] ||^2
        + || eps_th(z', c_a) - eps*(z', c_a) ||^2

with c_a = G(pi) . T. Both errors are measured as x0, that is with the weight (1 - ab)/ab on errors of eps. Defaults are
those of the code for objects and artists; for nudity use `--weights noxattn --centres 50 --k-closest 200`. The code's
pgd_num_steps is `search_turns` + 1. As in the code, each of several targets has 100 candidates of its own.

This differs from the code in five points. States are exactly at their timestep t. The common words are the first of the
tokenizer, not the list EN3K. Plurals of the target and phrases that contain it are no candidates, while the code
filters nothing. The k-means is exact, theirs is Lloyd's algorithm from random starts. The choice for a target that has
no row in a step stays as it is, while in the code Adam's momentum still moves it. `--margin` and `--search-gradient
score` are ours, see `efface.training.preservation.adversarial`.
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
from ..training.objectives.negative_guidance import Beyond, NegativeGuidance
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
    """Strength of negative guidance: how far beyond the other prediction the target is pushed."""
    beyond: Beyond = "empty"
    """What the target is pushed beyond: the prediction for the empty prompt, as published, or for the `rest` of its
    prompt, the template without the target, so that what else the template names stays (ours; for styles)."""
    space: Space = "x0"
    """The space in which squared errors are measured, which decides how much noisy timesteps count."""
    hard: bool = True
    """Choose one candidate (straight-through) rather than a mixture; a mixture needs the student's trajectories."""
    search_gradient: SearchGradient = "straight-through"
    """How the search learns: by the gradient through the chosen word's embedding, as published, or by the words'
    losses alone."""

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        self.check_mixture(self.hard)
        search = self.build_search(model, erasure, self.hard, gradient=self.search_gradient)
        return (
            NegativeGuidance(build_target_trajectories(self, erasure), self.eta, self.space, self.beyond),
            Adversarial(build_preservation_states(self), search, self.space),
        )

    def build_update(self) -> Update:
        return Dense(self.weights, self.lr)

    def build_balance(self) -> Balance:
        return Sum(keep=self.keep_weight)
