"""Gradient ascent on pictures of the target: a baseline (NegGrad).

The loss is -|| eps_th(x_t, c_f) - eps ||^2 + alpha L_r. With `remain_weight` 0 it is ascent alone, which destroys a
model if it runs for long. The values are our own and no paper's, so compare it with other methods at equal
preservation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ..concept import Erasure
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Term, Update
from ..training.objectives.denoising import Denoising
from ..training.updates.dense import Dense
from .base import ImageMethod
from .states import build_forget_pictures, build_remain_pictures


@final
@dataclass(frozen=True, kw_only=True)
class NegGrad(ImageMethod):
    """Ascends the training loss on pictures of the target, and descends it on pictures that remain."""

    weights: str = "full"
    """Which weights may change: subsets or regular expressions, comma-separated."""
    steps: int = 100
    """Number of updates of the weights."""
    batch: int = 8
    """Batch size: rows of each loss term in an update."""
    remain_weight: float = 1.0
    """Weight of the loss on pictures that remain."""

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        source, captions = build_remain_pictures(self, model, erasure)
        return (
            Denoising(build_forget_pictures(self, model, erasure), self.space, "erase", sign=-1.0),
            Denoising(source, self.space, "keep", captions),
        )

    def build_update(self) -> Update:
        return Dense(self.weights, self.lr)

    def build_balance(self) -> Balance:
        return Sum(keep=self.remain_weight)
