"""Fine-tuning on pictures that remain: a baseline that relies on the target being forgotten without further action.

L_r = || eps_th(x_t, c) - eps ||^2 on remain pictures alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..concept import Erasure
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Term, Update
from ..training.objectives.denoising import Denoising
from ..training.updates.dense import Dense
from .base import ImageMethod
from .states import build_remain_pictures


@final
@dataclass(frozen=True, kw_only=True)
class FineTune(ImageMethod):
    """Trains on pictures that remain and never sees the target."""

    forget_images: ClassVar[str] = ""  # type: ignore[misc]  # it never sees the target, so there is no such setting
    weights: str = "full"
    """Which weights may change: subsets or regular expressions, comma-separated."""
    batch: int = 8
    """Batch size: rows of each loss term in an update."""

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        source, captions = build_remain_pictures(self, model, erasure)
        return (Denoising(source, self.space, "keep", captions),)

    def build_update(self) -> Update:
        return Dense(self.weights, self.lr)

    def build_balance(self) -> Balance:
        return Sum()
