"""Relaxed binary masks over weights, and their binarisation.

The paper on pruning for erasing (arXiv 2405.16534) could be read in part only: these relaxations are our own.
Hard-concrete is Louizos et al., arXiv 1712.01312, eq. 10 to 12.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

STRETCH = (-0.1, 1.1)
PIECE = 2**22
"""The number of keys, of eight bytes each, that are computed at once."""


def straight_through(logits: Tensor, tau: float) -> Tensor:
    """Gives 0 or 1, as the logits s [...] are below or above 0, with the gradient of sigmoid(s / tau)."""
    soft = torch.sigmoid(logits / tau)
    return (logits > 0).to(soft) + (soft - soft.detach())


def hard_concrete(logits: Tensor, tau: float, u: Tensor) -> Tensor:
    """A sample in [0, 1], exactly 0 or 1 with some probability; u is uniform on (0, 1), shaped as the logits."""
    low, high = STRETCH
    noise = torch.log(u) - torch.log1p(-u)
    return (torch.sigmoid((noise + logits) / tau) * (high - low) + low).clamp(0, 1)


def keep_probability(logits: Tensor, tau: float) -> Tensor:
    """Computes the probability that a hard-concrete sample is not 0, its expected L0 norm, in the logits' shape."""
    low, high = STRETCH
    return torch.sigmoid(logits - tau * torch.log(torch.tensor(-low / high)))


def binarise(logits: Sequence[Tensor], sparsity: float = 0.0) -> list[Tensor]:
    """Which weights are kept: those with logits above 0, or all but an exact share of the lowest over all tensors.

    Args:
        logits: the logits of each tensor, of any shapes; the masks are of the same shapes.
        sparsity: the share to prune, round(sparsity * n) weights of n; 0 prunes the weights with logits not above 0.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"a sparsity is a share from 0 to below 1, got {sparsity}")
    if sparsity == 0:
        return [s > 0 for s in logits]
    pruned = choose_largest([-s for s in logits], round(sparsity * sum(s.numel() for s in logits)))
    return [~chosen for chosen in pruned]


def choose_largest(parts: Sequence[Tensor], count: int) -> list[Tensor]:
    """The `count` largest of all numbers in these fp32 tensors, as a mask for each tensor; of equal ones the first.

    The threshold is found by four histograms of 256 bins, like the digits of a radix sort, so that no workspace is
    larger than a piece of a tensor; sorting all numbers at once would take many times their size.

    Example:
        >>> choose_largest([torch.tensor([1.0, 3.0]), torch.tensor([3.0, -2.0])], 1)
        [tensor([False,  True]), tensor([False, False])]
    """
    if not 0 < count < sum(part.numel() for part in parts):
        return [torch.full_like(part, count > 0, dtype=torch.bool) for part in parts]
    prefix, left = 0, count
    for shift in (24, 16, 8, 0):
        bins = torch.zeros(257, dtype=torch.long, device=parts[0].device)
        for piece in _gather_pieces(parts):
            key = _to_key(piece)
            digit = torch.where(key >> (shift + 8) == prefix, (key >> shift) & 255, 256)
            bins += torch.bincount(digit, minlength=257)
        above = bins[:256].flip(0).cumsum(0).tolist()  # the number in the highest bins
        place = next(i for i, many in enumerate(above) if many >= left)
        left -= above[place - 1] if place else 0
        prefix = (prefix << 8) | (255 - place)
    chosen, equal = [], left
    for part in parts:
        key = torch.cat([_to_key(piece) for piece in part.reshape(-1).split(PIECE)])
        same = key == prefix
        number = int(same.sum())
        first = same if number <= equal else same & (same.cumsum(0) <= equal)
        equal -= min(number, equal)
        chosen.append(((key > prefix) | first).view(part.shape))
    return chosen


def _gather_pieces(parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """All numbers of these tensors in pieces of at most `PIECE`; small tensors are concatenated."""
    waiting: list[Tensor] = []
    for piece in (piece for part in parts for piece in part.reshape(-1).split(PIECE)):
        if waiting and sum(map(len, waiting)) + len(piece) > PIECE:
            yield torch.cat(waiting)
            waiting = []
        waiting.append(piece)
    yield torch.cat(waiting)


def _to_key(x: Tensor) -> Tensor:
    """Maps fp32 numbers to whole numbers from 0 to below 2^32 in the same order, with -0 as 0."""
    bits = (x + 0.0).float().view(torch.int32).long()
    return torch.where(bits < 0, ~bits, bits + 2**31)
