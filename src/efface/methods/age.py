"""AGE: adaptive guided erasure (Bui et al., ICLR 2025, arXiv 2501.18950).

    || x0_th(z_e, c_e) - [x0*(z_e, c_t) - eta (x0*(z_e, c_e) - x0*(z_e, c_t))] ||^2
        + lambda || x0_th(z_t, c_t) - x0*(z_t, c_t) ||^2

This is EAP with an adaptive target c_t, which is chosen among 100 candidates of each concept to erase. In the authors'
code, `gumbel_hard` is our `hard` (1 is one-hot and does not use `gumbel_topk`; 0 mixes the `top` most likely
candidates, with weights that sum to 1), and `gumbel_temp` is our `temperature`. Defaults are those of their scripts for
objects; for nudity use `--weights noxattn --temperature 2`, for artists `--no-hard --temperature 2 --k-closest 1000`.
As in their release, pi learns from the second term alone.

This differs from the code in four points. States are exactly at their timestep t. The common words are the first of the
tokenizer, theirs are ImageNet's classes, artists or the list EN3K, which `vocabulary` can read from a file. Plurals of
the target and phrases that contain it are no candidates. With stored trajectories, the state z_t of a mixture lies on
the trajectory of its most likely word.
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

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        search = self.build_search(model, erasure, self.hard, 0 if self.hard else self.top)
        return (
            AdaptiveAnchor(build_target_trajectories(self, erasure), search, self.eta, self.space),
            Adversarial(build_preservation_states(self), search, self.space),
        )

    def build_update(self) -> Update:
        return Dense(self.weights, self.lr)

    def build_balance(self) -> Balance:
        return Sum(keep=self.keep_weight)
