"""KID (Binkowski et al. 2018): how far the edited model's pictures are, as a set, from the base's; by torchmetrics.

    MMD^2 of features x, y under k(x, y) = (x . y / d + 1)^3, the estimate without bias

It may be below zero where the sets do not differ. Sets over 1,000 pictures are split into as few disjoint blocks as
have at most 1,000 pictures each, of sizes that differ by one at most, and the mean over blocks is taken; of a larger
set of reference pictures, each block has 1,000. `_sets.py` says which sets are compared. Published KID is often this
number times 1,000.
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

    version: ClassVar[str] = "2"
    title: ClassVar[str] = "KID"
    unit: ClassVar[str] = "squared distance"
    better: ClassVar[Better] = "lower"
    packages: ClassVar[tuple[str, ...]] = ("torchmetrics",)
    name: str = "kid"

    def compute_number(self, known: Tensor, x: Tensor) -> float:
        return kid(known, x)

    def compute_at(self, known: Tensor, x: Tensor, at: Tensor, paired: bool) -> float:
        left = torch.zeros(len(x), dtype=torch.bool).index_fill(0, at, True)
        return kid(known, x, left if paired else None, left)


def kid(x: Tensor, y: Tensor, left_x: Tensor | None = None, left_y: Tensor | None = None) -> float:
    """KID of features [n, d] and [m, d]; of sets over 1,000 it is the mean over blocks of both.

    `left_x` [n] and `left_y` [m] say which rows are left, where an interval leaves some out: blocks are those of the
    whole sets, without these rows, because other blocks would differ more than the rows do.
    """
    blocks = math.ceil(min(len(x), len(y)) / BLOCK)
    pairs = [(_take_block(x, i, blocks, left_x), _take_block(y, i, blocks, left_y)) for i in range(blocks)]
    return math.fsum(_measure_mmd(one, other) for one, other in pairs) / blocks


def _measure_mmd(x: Tensor, y: Tensor) -> float:
    """The estimate of MMD^2 without bias, of features [n, d] and [m, d]; n and m may differ."""
    from torchmetrics.image.kid import poly_kernel

    own = [poly_kernel(each, each) for each in (x, y)]
    within = sum((k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in own)
    return float(within - 2 * poly_kernel(x, y).mean())


def _take_block(x: Tensor, i: int, blocks: int, left: Tensor | None) -> Tensor:
    """The i-th block, spread over the whole set, because neighbours often share a concept; at most BLOCK rows of it."""
    rows = torch.arange(i, len(x), blocks)
    rows = rows[torch.linspace(0, len(rows) - 1, min(len(rows), BLOCK)).long()]
    return x[rows if left is None else rows[left[rows]]].double()
