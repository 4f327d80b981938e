"""AGE: adaptive guided erasure (Bui et al., ICLR 2025, arXiv 2501.18950).

|| x0_th(z_e, c_e) - [x0*(z_e, c_t) - eta (x0*(z_e, c_e) - x0*(z_e, c_t))] ||^2 + lambda || x0_th(z_t, c_t) - x0*(z_t,
c_t) ||^2: EAP's skeleton with an adaptive target c_t, the renormalised mixture of the two likeliest of 100 candidates.
Defaults are the code's for objects (temperature 0.1; nudity: `--weights noxattn --temperature 2`). As in the release,
pi learns from the second term alone. Differs: exact t; the common words are the tokenizer's first; where
trajectories are stored, z_t is on one of the mixture's leading word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ..concept import Erasure
from ..functional.schedules import Space
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Term, Update
from ..training.objectives.adaptive_anchor import AdaptiveAnchor
from ..training.preservation.adversarial import Adversarial
from ..training.updates.dense import Dense
from .searching import SearchMethod
from .states import build_preservation_states, build_trajectories


@final
@dataclass(frozen=True, kw_only=True)
class AGE(SearchMethod):
    """Pushes the target away around a mixture of near concepts that the search adapts; kept words are candidates."""

    eta: float = 1.0
    """How far to the other side of the mixture's prediction the target is pushed."""
    space: Space = "x0"
    """Where squared errors are measured; sets how much noisy timesteps weigh."""
    k_closest: int = 100
    """Candidates are among this many words nearest to the target."""
    temperature: float = 0.1
    """Of the search's Gumbel-Softmax choice."""
    top: int = 2
    """How many candidates are mixed."""

    def terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        search = self.search(model, erasure, top=self.top)
        return (
            AdaptiveAnchor(build_trajectories(self, self.paths), search, self.eta, self.space),
            Adversarial(build_preservation_states(self), search, self.space),
        )

    def update(self) -> Update:
        return Dense(self.weights, self.lr)

    def balance(self) -> Balance:
        return Sum(keep=self.keep_weight)
