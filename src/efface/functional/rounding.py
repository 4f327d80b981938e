"""Lossy changes of weights that are common in deployment: fewer bits, or fewer numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def round_weights(weight: Tensor, bits: int) -> Tensor:
    """Rounds a weight [out, ...] to `bits` bits, symmetrically around 0, with one scale for each output channel.

    The largest magnitude of a channel is kept exactly and has 2^(bits - 1) - 1 steps below it; ties go to even.

    Raises:
        ValueError: there are fewer than 2 bits, with which 0 is the only number.
    """
    if bits < 2:
        raise ValueError(f"symmetric rounding takes at least 2 bits (-1, 0, 1), got {bits}")
    steps = 2 ** (bits - 1) - 1
    flat = weight.float().flatten(1)
    scale = flat.abs().amax(dim=1, keepdim=True) / steps
    whole = torch.where(scale > 0, flat / scale, flat).round().clamp(-steps, steps)
    return (whole * scale).view(weight.shape).to(weight.dtype)


def prune_weights(weight: Tensor, sparsity: float) -> Tensor:
    """Sets exactly round(sparsity * n) of a weight's n numbers, those of the smallest magnitude, to 0.

    Raises:
        ValueError: the sparsity is outside [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"a sparsity is a share from 0 to below 1, got {sparsity}")
    left = weight.flatten().clone()
    left[torch.argsort(left.abs(), stable=True)[: round(sparsity * len(left))]] = 0
    return left.view(weight.shape)
