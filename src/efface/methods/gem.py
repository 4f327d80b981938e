"""GEM: Geometric Erasure by Contrastive Velocity Matching (Grebe et al., ICML 2026, arXiv 2606.00140).

L = relu(d(v_th(x_t, c), v*(x_t, c_anchor)) - eta d(v_th(x_t, c), v*(x_t, c))), x_t on the student's own trajectories,
in their first 10 steps; made for flows (FLUX, SD3), and the same formula for any prediction. The target moves until it
is nearer to the anchor than to itself. The paper's abstract and a summary of its settings were all that could be read:
queries and keys of both streams, learning rate 1e-3 on FLUX (2e-4 on SD3), 250 updates. d as the mean squared error of
a row, eta 1, rank 16 and batch 1 are our reconstruction, and so is that nothing is preserved beside. Without an anchor
the target becomes the empty prompt.
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
    """Pulls the target to the anchor and off itself at early states, and stops where it is nearer to the anchor."""

    uses_anchor: ClassVar[bool] = True
    weights: str = "qk"
    """Which weights may move: subsets or regular expressions, comma-separated; vectors stay."""
    steps: int = 250
    """Number of updates of the weights."""
    lr: float = 1e-3
    """Adam's learning rate for the factors."""
    eta: float = 1.0
    """How much the distance from the target's own prediction counts."""
    first: int = 10
    """Steps of a trajectory, the noisiest, that states are taken from."""
    rank: int = 16
    """Rank of the change."""

    def __post_init__(self) -> None:
        TrajectoryMethod.__post_init__(self)
        if self.first < 1:
            raise ValueError(f"first must be at least 1, got {self.first}; the paper's is 10")

    def relies_on_uncond(self, erasure: Erasure) -> bool:
        """Only where there is no anchor, so that the target becomes the empty prompt."""
        return not erasure.anchor

    def terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        source = Early(build_target_trajectories(self, erasure), self.first)
        return Objective(source, self.eta, self.space), NoPreservation()

    def update(self) -> Update:
        return LowRank(self.weights, self.lr, self.rank)

    def balance(self) -> Balance:
        return Sum()
