"""Picks candidate concepts by distance, as EAP does (Bui et al., arXiv 2410.15618, and its code)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def measure_distances(words: Tensor, target: Tensor) -> Tensor:
    """The L2 distances [n] between flattened embeddings of words [n, d] and of the target [d]."""
    return (words.float() - target.float()).norm(dim=1)


def find_k_closest(distance: Tensor, k: int) -> Tensor:
    """Indices of the k smallest distances [n], nearest first."""
    return torch.argsort(distance, stable=True)[:k]


def find_apart(distance: Tensor, margin: float) -> Tensor:
    """The mask [n] of words at least `margin` times the median distance [n] away; nearer ones mean the target."""
    return distance >= margin * distance.median()


def kmeans_1d(values: Tensor, k: int) -> Tensor:
    """The centres [k], ascending, of the optimal k-means on scalars [n], without randomness.

    The clusters of sorted scalars are intervals, so that dynamic programming finds the optimum (Wang & Song, The R
    Journal 2011): the least inertia of the first j values in m clusters is the minimum, over the start i of the last
    cluster, of the least inertia of the first i values in m - 1 clusters plus the inertia of values i to j. The best
    start never falls as j grows, so that the starts of all j are found by divide and conquer, in O(k n log n).
    """
    if not 1 <= k <= len(values):
        raise ValueError(f"{k} centres for {len(values)} values")
    values = values.double().sort().values
    # Around their mean, so that the differences of squares below lose no digits to a common offset.
    around = values - values.mean()
    none = around.new_zeros(1)
    sums, squares = torch.cat([none, around.cumsum(0)]), torch.cat([none, around.square().cumsum(0)])

    def inertia(i: Tensor, j: Tensor) -> Tensor:
        """The inertia of clusters of the values from i to before j."""
        return (squares[j] - squares[i] - (sums[j] - sums[i]).square() / (j - i)).clamp(min=0)

    ends = torch.arange(1, len(values) + 1)
    least = torch.cat([torch.full((1,), torch.inf, dtype=torch.double), inertia(torch.zeros_like(ends), ends)])
    starts: list[Tensor] = []
    for m in range(2, k + 1):
        least, start = _add_cluster(least, inertia, m)
        starts.append(start)
    borders = [len(values)]
    for start in reversed(starts):
        borders.append(int(start[borders[-1]]))
    edges = torch.tensor([0, *reversed(borders)])
    return values.mean() + (sums[edges[1:]] - sums[edges[:-1]]) / (edges[1:] - edges[:-1])


def _add_cluster(least: Tensor, inertia: Callable[[Tensor, Tensor], Tensor], m: int) -> tuple[Tensor, Tensor]:
    """The least inertia [n + 1] of the first j values in m clusters, and the start of the last cluster.

    Args:
        least: the least inertia [n + 1] for m - 1 clusters; infinite where there are fewer values than clusters.
        inertia: gives the inertia of clusters, from their starts and ends.
        m: the number of clusters.
    """
    n = len(least) - 1
    best, start = torch.full_like(least, torch.inf), torch.zeros_like(least, dtype=torch.long)
    # Segments of ends whose starts lie between known bounds; each level solves their middles and halves them.
    first, last = torch.tensor([m]), torch.tensor([n])
    low, high = torch.tensor([m - 1]), torch.tensor([n])
    while len(first):
        middle = (first + last) // 2
        top = torch.minimum(high, middle - 1)
        counts = top - low + 1
        owner = torch.repeat_interleave(torch.arange(len(middle)), counts)
        tried = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner] + low[owner]
        cost = least[tried] + inertia(tried, middle[owner])
        lowest = torch.full((len(middle),), torch.inf, dtype=torch.double).scatter_reduce(0, owner, cost, "amin")
        reached = torch.where(cost <= lowest[owner], tried, n)
        found = torch.full((len(middle),), n).scatter_reduce(0, owner, reached, "amin")
        best[middle], start[middle] = lowest, found
        parts = [(first, middle - 1, low, found), (middle + 1, last, found, high)]
        first, last, low, high = (torch.cat([part[side] for part in parts]) for side in range(4))
        going = first <= last
        first, last, low, high = first[going], last[going], low[going], high[going]
    return best, start


def pick_spread(distance: Tensor, k: int) -> Tensor:
    """Indices of at most k of the distances [n], spread over their range: the nearest one to each of k centres."""
    if k >= len(distance):
        return torch.arange(len(distance))
    centres = kmeans_1d(distance, k)
    nearest = (distance.double()[None] - centres[:, None]).abs().argmin(dim=1)
    return torch.unique(nearest)
