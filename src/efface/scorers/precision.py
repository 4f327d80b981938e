"""Precision (Kynkaanniemi et al. 2019): the share of the edited model's pictures that the base could have drawn.

A picture counts if its features are, for at least one picture of the other set, within the distance of that picture's
k-th nearest neighbour in its own set (k = 3, as published). `_sets.py` says which sets are compared.
"""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..concept import require_positive
from ._sets import Compared
from .base import Better


@final
@dataclass(frozen=True, kw_only=True)
class Precision(Compared):
    """Share of the edited model's pictures that lie among the base's, or among reference pictures."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "precision (pictures that lie among those compared with)"
    unit: ClassVar[str] = "fraction of the set"
    better: ClassVar[Better] = "higher"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    k: int = 3
    """The rank k of the nearest neighbour whose distance is a picture's radius."""
    name: str = "precision"

    def __post_init__(self) -> None:
        require_positive(self, "least", "k")

    def compute_number(self, known: Tensor, x: Tensor) -> float:
        return measure_share_within(known, x, self.k)


def measure_share_within(known: Tensor, x: Tensor, k: int) -> float:
    """The share of features `x` [m, d] that are within the radius of at least one of `known` [n, d]."""
    known, x = known.double(), x.double()
    own = torch.cdist(known, known)
    own.fill_diagonal_(float("inf"))
    reach = own.kthvalue(min(k, len(known) - 1), dim=1).values
    inside = [(torch.cdist(part, known) <= reach).any(dim=1) for part in x.split(1024)]
    return float(torch.cat(inside).double().mean())
