"""GEM: Geometric Erasure by Contrastive Velocity Matching (Grebe et al., ICML 2026, arXiv 2606.00140).

L = relu(d(v_th(x_t, c), v*(x_t, c_anchor)) - eta d(v_th(x_t, c), v*(x_t, c))), where x_t lies on the student's own
trajectories, within their first 10 steps. The prediction for the target moves until it is nearer to the anchor's than
to its own former one. The method was made for flows (FLUX, SD3); the same formula serves any prediction. We could read
only the paper's abstract and a summary of its settings: the queries and keys of both streams are trained, with a
learning rate of 1e-3 on FLUX (2e-4 on SD3) and 250 updates. Our reconstruction is that d is the mean squared error of a
row, eta 1, rank 16, batch 1, and that nothing else is preserved. Without an anchor the target becomes the empty prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..concept import Erasure
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Term, Update
from ..training.objectives.gem import GEM as Objective
from ..training.preservation.nothing import NoPreservation
from ..training.states.early import Early
from ..training.updates.lowrank import LowRank
from .base import TrajectoryMethod
from .states import build_target_trajectories


@final
@dataclass(frozen=True, kw_only=True)
class GEM(TrajectoryMethod):
    """Moves the target towards the anchor and away from itself at early states, until it is nearer to the anchor."""

    uses_anchor: ClassVar[bool] = True
    weights: str = "qk"
    """Which weights may change: subsets or regular expressions, comma-separated; vectors among them do not."""
    steps: int = 250
    """Number of updates of the weights."""
    lr: float = 1e-3
    """Adam's learning rate for the factors."""
    eta: float = 1.0
    """Weight of the distance from the base's prediction for the target."""
    first: int = 10
    """Number of steps, the noisiest of a trajectory, from which states are taken."""
    rank: int = 16
    """Rank of the change."""

    def __post_init__(self) -> None:
        TrajectoryMethod.__post_init__(self)
        if self.first < 1:
            raise ValueError(f"first must be at least 1, got {self.first}; the paper's is 10")

    def relies_on_uncond(self, erasure: Erasure) -> bool:
        """Whether there is no anchor, so that the target becomes the empty prompt."""
        return not erasure.anchor

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        source = Early(build_target_trajectories(self, erasure), self.first)
        return Objective(source, self.eta, self.space), NoPreservation()

    def build_update(self) -> Update:
        return LowRank(self.weights, self.lr, self.rank)

    def build_balance(self) -> Balance:
        return Sum()
