from __future__ import annotations

import itertools

import pytest
import torch

from efface.functional.candidates import find_apart, find_k_closest, kmeans_1d, measure_distances, pick_spread


def test_distances_and_k_closest():
    words = torch.tensor([[0.0, 3.0], [4.0, 0.0], [0.0, 0.1], [1.0, 0.0]])
    distance = measure_distances(words, torch.zeros(2))
    assert torch.allclose(distance, torch.tensor([3.0, 4.0, 0.1, 1.0]))
    assert find_k_closest(distance, 3).tolist() == [2, 3, 0]
    assert find_apart(distance, 0.5).tolist() == [True, True, False, True]
    assert find_apart(4 * distance, 0.5).tolist() == [True, True, False, True]
    assert find_apart(4 * distance, 1.0).tolist() == [True, True, False, True]  # at the bound itself it is apart


def inertia(values: torch.Tensor, centres: torch.Tensor) -> float:
    return (values[:, None] - centres).square().min(dim=1).values.sum().item()


def test_no_split_has_less_inertia_than_kmeans():
    """Sorted clusters are intervals, so all splits of a short list can be tried; some lists have equal values."""
    rng = torch.Generator().manual_seed(0)
    for n, k in itertools.product(range(2, 9), range(1, 9)):
        values = torch.randn(n, generator=rng, dtype=torch.double) * (1 if n % 2 else 3) + 100
        values = values.round() if n % 3 == 0 else values
        if k > n:
            continue
        parts = (torch.tensor_split(values.sort().values, at) for at in itertools.combinations(range(1, n), k - 1))
        best = min(sum(float((part - part.mean()).square().sum()) for part in split) for split in parts)
        centres = kmeans_1d(values, k)
        assert inertia(values, centres) == pytest.approx(best, abs=1e-9)
        assert len(centres) == k and centres.tolist() == sorted(centres.tolist())


def test_kmeans_on_a_thousand_distances_is_the_plain_recursion():
    """The k n^2 recursion without any bound on where a cluster starts; from quantiles Lloyd's ends far above it."""
    values = torch.rand(1000, generator=torch.Generator().manual_seed(1), dtype=torch.double).pow(4).sort().values
    sums, squares = (torch.cat([torch.zeros(1).double(), v.cumsum(0)]) for v in (values, values.square()))
    j, i = torch.arange(1001)[:, None], torch.arange(1001)[None]
    within = (squares[j] - squares[i] - (sums[j] - sums[i]).square() / (j - i)).where(j > i, torch.inf)
    least = within[:, 0].clone()
    for _ in range(29):
        least = (least[None] + within).min(dim=1).values
    found = inertia(values, kmeans_1d(values, 30))
    assert found == pytest.approx(least[-1].item(), rel=1e-6)
    centres = torch.quantile(values, (torch.arange(30).double() + 0.5) / 30)
    for _ in range(100):
        home = (values[:, None] - centres).abs().argmin(1)
        centres = torch.stack([values[home == c].mean() if (home == c).any() else centres[c] for c in range(30)])
    assert inertia(values, centres) > 1.4 * found


def test_kmeans_refuses_more_centres_than_values():
    with pytest.raises(ValueError, match="5 centres for 3 values"):
        kmeans_1d(torch.arange(3.0), 5)


def test_spread_covers_the_range_without_repeats():
    distance = torch.cat([torch.linspace(0, 1, 50), torch.linspace(10, 11, 50)])
    picked = pick_spread(distance, 6)
    assert len(picked.unique()) == len(picked) <= 6
    assert (distance[picked] < 5).any()
    assert (distance[picked] > 5).any()
    assert pick_spread(distance, 200).tolist() == list(range(100))
    assert pick_spread(torch.tensor([1.0, 1.0, 2.0]), 3).tolist() == [0, 1, 2]
