from __future__ import annotations

import itertools

import pytest
import torch

from efface.functional.candidates import find_apart, k_closest, kmeans_1d, measure_distances, pick_spread


def test_distances_and_k_closest():
    words = torch.tensor([[0.0, 3.0], [4.0, 0.0], [0.0, 0.1], [1.0, 0.0]])
    distance = measure_distances(words, torch.zeros(2))
    assert torch.allclose(distance, torch.tensor([3.0, 4.0, 0.1, 1.0]))
    assert k_closest(distance, 3).tolist() == [2, 3, 0]
    assert find_apart(distance, 0.5).tolist() == [True, True, False, True]


def test_kmeans_is_no_worse_than_brute_force():
    """Sorted clusters are intervals, so all splits of a short list can be tried."""
    values = torch.tensor([0.0, 0.1, 0.2, 5.0, 5.1, 9.0, 9.5, 9.6]).double()

    def cost(centres: torch.Tensor) -> float:
        return (values[:, None] - centres).square().min(dim=1).values.sum().item()

    splits = itertools.combinations(range(1, len(values)), 2)
    best = min(cost(torch.stack([values[:i].mean(), values[i:j].mean(), values[j:].mean()])) for i, j in splits)
    assert cost(kmeans_1d(values, 3)) == pytest.approx(best)


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
