"""AGE: adaptive guided erasure (Bui et al., ICLR 2025, arXiv 2501.18950).

|| x0_th(z_e, c_e) - [x0*(z_e, c_t) - eta (x0*(z_e, c_e) - x0*(z_e, c_t))] ||^2 + lambda || x0_th(z_t, c_t) - x0*(z_t,
c_t) ||^2: EAP's skeleton with an adaptive target c_t, chosen among 100 candidates of each target. In the authors' code:
`gumbel_hard` is `hard` (1 is one-hot and leaves `gumbel_topk` unused, 0 mixes the `top` likeliest, renormalised),
`gumbel_temp` is `temperature`. Defaults are its scripts' for objects; nudity: `--weights noxattn --temperature 2`;
artists: `--no-hard --temperature 2 --k-closest 1000`. As in the release, pi learns from the second term alone.
Differs: exact t; the common words are the tokenizer's first, theirs ImageNet's classes, artists or EN3K, which
`vocabulary` takes as a file; plurals of the target and phrases with it are no candidates; where trajectories are
stored, a soft z_t is on one of the mixture's likeliest word.
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
from .states import build_preservation_states, build_target_trajectories


@final
@dataclass(frozen=True, kw_only=True)
class AGE(SearchMethod):
    """Pushes the target away from a near concept that a search adapts; concepts to keep are candidates of the
    search."""

    eta: float = 1.0
    """Strength of negative guidance: how far beyond the chosen concept's prediction the target is pushed."""
    space: Space = "x0"
    """The space in which squared errors are measured, which decides how much noisy timesteps count."""
    k_closest: int = 100
    """Number of words nearest to the target among which candidates are chosen."""
    temperature: float = 0.1
    """Temperature of the search's Gumbel-Softmax choice."""
    hard: bool = True
    """Choose one candidate (straight-through) rather than a mixture of the likeliest."""
    top: int = 5
    """Number of candidates in a mixture; a hard choice does not use it."""

    def __post_init__(self) -> None:
        SearchMethod.__post_init__(self)
        if self.top < 1:
            raise ValueError(f"a mixture needs at least 1 candidate, got top={self.top}")

    def terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        search = self.search(model, erasure, self.hard, 0 if self.hard else self.top)
        return (
            AdaptiveAnchor(build_target_trajectories(self, erasure), search, self.eta, self.space),
            Adversarial(build_preservation_states(self), search, self.space),
        )

    def update(self) -> Update:
        return Dense(self.weights, self.lr)

    def balance(self) -> Balance:
        return Sum(keep=self.keep_weight)
