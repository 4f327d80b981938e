"""P-AC: pruning for robust concept erasing under concept ablation's objective (Yang et al., arXiv 2405.16534).

min_s || eps_{th * m(s)}(x_t, c_e) - eps*(x_t, c_anchor) ||^2 + beta mean(1 - m). We could read the idea of the paper,
but not its settings: relaxation, start, regulariser, layers, learning rate and steps are our reconstruction. This
differs from AC in two points: x_t lies on guided trajectories under the anchor's prompt, not on noised pictures of the
anchor, and AC's preservation of a prior on pictures of the anchor is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..concept import Erasure
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Term
from ..training.objectives.anchor import Anchor
from ..training.updates.mask import KeepWeights
from .pruning import Pruning
from .states import build_trajectories


@final
@dataclass(frozen=True, kw_only=True)
class PAC(Pruning):
    """Prunes weights so that the target is drawn as the anchor."""

    uses_anchor: ClassVar[bool] = True
    needs_anchor: ClassVar[bool] = True
    weights: str = "xattn-strict"
    """Which weights may change: subsets or regular expressions, comma-separated."""

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        return Anchor(build_trajectories(self, self.paths), self.space, states="anchor"), KeepWeights(self.beta)

    def build_balance(self) -> Balance:
        return Sum()
