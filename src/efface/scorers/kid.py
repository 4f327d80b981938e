"""KID (Binkowski et al. 2018): how far the edited model's pictures are, as a set, from the base's; by torchmetrics.

    MMD^2 of features x, y under k(x, y) = (x . y / d + 1)^3, the estimate without bias

It may be below zero where the sets do not differ. Sets over 1,000 pictures are split into disjoint blocks of that size,
whose mean is taken; `_sets.py` says which sets are compared. Published KID is often this number times 1,000.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ._sets import Compared
from .base import Better

BLOCK = 1000


@final
@dataclass(frozen=True, kw_only=True)
class Kid(Compared):
    """Kernel distance of the edited model's pictures from the base's, or from reference pictures."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "KID"
    unit: ClassVar[str] = "squared distance"
    better: ClassVar[Better] = "lower"
    packages: ClassVar[tuple[str, ...]] = ("torchmetrics",)
    name: str = "kid"

    def compute_number(self, known: Tensor, x: Tensor) -> float:
        return kid(known, x)


def kid(x: Tensor, y: Tensor) -> float:
    """KID of features [n, d] and [m, d]; sets of unequal size, or over 1,000, are compared by equal blocks."""
    from torchmetrics.image.kid import poly_mmd

    size = min(len(x), len(y), BLOCK)
    blocks = min(len(x), len(y)) // size
    return (
        math.fsum(
            float(poly_mmd(_take_block(x, i, blocks, size), _take_block(y, i, blocks, size))) for i in range(blocks)
        )
        / blocks
    )


def _take_block(x: Tensor, i: int, blocks: int, size: int) -> Tensor:
    """The `size` rows of the i-th block, spread over the whole set, because neighbours often share a concept."""
    rows = x[i::blocks]
    return rows[torch.linspace(0, len(rows) - 1, size).long()].double()
