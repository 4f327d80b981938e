"""Relaxed binary masks over weights, and making them binary.

The paper on pruning for erasing (arXiv 2405.16534) could be read in part only: these relaxations are our own.
Hard-concrete is Louizos et al., arXiv 1712.01312, eq. 10 to 12.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STRETCH = (-0.1, 1.1)


def straight_through(logits: Tensor, tau: float) -> Tensor:
    """0 or 1 where s is below or above 0, sigmoid(s / tau) below or above 1/2, with the sigmoid's gradient."""
    soft = torch.sigmoid(logits / tau)
    return (logits > 0).to(soft) + (soft - soft.detach())


def hard_concrete(logits: Tensor, tau: float, u: Tensor) -> Tensor:
    """A sample in [0, 1], exactly 0 or 1 with some probability; u is uniform on (0, 1), shaped as the logits."""
    low, high = STRETCH
    noise = torch.log(u) - torch.log1p(-u)
    return (torch.sigmoid((noise + logits) / tau) * (high - low) + low).clamp(0, 1)


def keep_probability(logits: Tensor, tau: float) -> Tensor:
    """The probability that a hard-concrete sample is not 0: its expected L0 norm, weight by weight."""
    low, high = STRETCH
    return torch.sigmoid(logits - tau * torch.log(torch.tensor(-low / high)))


def binarise(logits: Sequence[Tensor], sparsity: float = 0.0) -> list[Tensor]:
    """Which weights are kept: those with logits above 0, or all but an exact share of the lowest over all tensors.

    Args:
        sparsity: the share to prune, round(sparsity * n) weights of n; 0 prunes what the logits say.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"a sparsity is a share from 0 to below 1, got {sparsity}")
    if sparsity == 0:
        return [s > 0 for s in logits]
    every = torch.cat([s.flatten() for s in logits])
    kept = torch.ones_like(every, dtype=torch.bool)
    kept[torch.argsort(every, stable=True)[: round(sparsity * len(every))]] = False
    return [part.view(s.shape) for part, s in zip(kept.split([s.numel() for s in logits]), logits, strict=True)]
