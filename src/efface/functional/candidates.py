"""Picking candidate concepts by distance, as EAP does (Bui et al., arXiv 2410.15618, and its code)."""

from __future__ import annotations

import torch
from torch import Tensor


def measure_distances(words: Tensor, target: Tensor) -> Tensor:
    """L2 distance [n] between flattened embeddings, words [n, d] and target [d]."""
    return (words.float() - target.float()).norm(dim=-1)


def k_closest(distance: Tensor, k: int) -> Tensor:
    """Indices of the k smallest distances [n], nearest first."""
    return torch.argsort(distance, stable=True)[:k]


def find_apart(distance: Tensor, margin: float) -> Tensor:
    """Which of the words are no nearer than `margin` times the median distance [n]; the others count as the target."""
    return distance >= margin * distance.median()


def kmeans_1d(values: Tensor, k: int, iterations: int = 100) -> Tensor:
    """Centres [k], ascending, of Lloyd's k-means on scalars [n], started from the quantiles: no randomness."""
    if not 1 <= k <= len(values):
        raise ValueError(f"{k} centres for {len(values)} values")
    values = values.double().sort().values
    centres = torch.quantile(values, (torch.arange(k, dtype=torch.double) + 0.5) / k)
    for _ in range(iterations):
        # Nearest centre by its midpoints: both are sorted, so this is a search, not an n x k table.
        home = torch.bucketize(values, (centres[1:] + centres[:-1]) / 2)
        count = torch.zeros(k, dtype=torch.double).index_add(0, home, torch.ones_like(values))
        total = torch.zeros(k, dtype=torch.double).index_add(0, home, values)
        moved = torch.where(count > 0, total / count.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def pick_spread(distance: Tensor, k: int) -> Tensor:
    """Indices of at most k of the distances [n], spread over their range: the nearest to each of k centres."""
    if k >= len(distance):
        return torch.arange(len(distance))
    centres = kmeans_1d(distance, k)
    nearest = (distance.double()[None] - centres[:, None]).abs().argmin(dim=1)
    return torch.unique(nearest)
