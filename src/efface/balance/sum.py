"""A weighted sum of the losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..game import Balance, Role


@final
@dataclass(frozen=True)
class Sum(Balance):
    """Erasing counts one, keeping `keep`, costs `cost`."""

    passes: ClassVar[int] = 1
    keep: float = 1.0
    cost: float = 1.0

    def __call__(
        self, losses: Mapping[Role, Tensor], grad_of: Callable[[Tensor], Sequence[Tensor]], floor: float | None
    ) -> Sequence[Tensor]:
        share: dict[Role, float] = {"erase": 1.0, "keep": self.keep, "cost": self.cost}
        return grad_of(torch.stack([share[role] * loss for role, loss in losses.items()]).sum())
