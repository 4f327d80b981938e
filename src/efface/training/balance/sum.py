"""A weighted sum of the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from ..interfaces import Balance, GradOf


@final
@dataclass(frozen=True)
class Sum(Balance):
    """The gradient of erase + `keep` * keep + `cost` * cost."""

    keep: float = 1.0
    cost: float = 1.0

    def __call__(self, grad_of: GradOf, floor: float | None) -> Sequence[Tensor]:
        return grad_of({"erase": 1.0, "keep": self.keep, "cost": self.cost})[1]
