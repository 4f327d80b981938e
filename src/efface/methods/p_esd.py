"""P-ESD: pruning for robust concept erasing under ESD's objective (Yang et al., arXiv 2405.16534).

min_s || eps_{th * m(s)}(x_t, c) - [eps*(0) - eta (eps*(c) - eps*(0))] ||^2 + beta mean(1 - m). We could read the idea
of the paper: a mask over single weights is learned under an erasing objective and stored instead of weights. We could
not read its settings: relaxation, start, regulariser, layers, learning rate and steps are our reconstruction.
`--weights noxattn` prunes the weights that ESD-u trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..concept import Erasure
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Term
from ..training.objectives.negative_guidance import Beyond, NegativeGuidance
from ..training.updates.mask import KeepWeights
from .pruning import Pruning
from .states import build_target_trajectories


@final
@dataclass(frozen=True, kw_only=True)
class PESD(Pruning):
    """Prunes the weights that generate the target; every other weight keeps its value."""

    needs_uncond: ClassVar[bool] = True
    eta: float = 1.0
    """Strength of negative guidance: how far beyond the other prediction the target is pushed."""
    beyond: Beyond = "empty"
    """What the target is pushed beyond: the prediction for the empty prompt, as published, or for the `rest` of its
    prompt, the template without the target, so that what else the template names stays (ours; for styles)."""

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        return (
            NegativeGuidance(build_target_trajectories(self, erasure), self.eta, self.space, self.beyond),
            KeepWeights(self.beta),
        )

    def build_balance(self) -> Balance:
        return Sum()
