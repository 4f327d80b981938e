"""The genetic search: what its operators may do, and that it finds what brute force finds."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from efface.functional.genetic import Breeding, breed, evolve, rank


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_the_best_string_there_is(seed: int) -> None:
    table = torch.rand((4, 6), generator=rng(seed))
    every = torch.tensor(list(itertools.product(range(6), repeat=4)))

    def cost(strings: Tensor) -> Tensor:
        return table[torch.arange(4), strings].sum(-1)

    found, costs = evolve(cost, Breeding(genes=6, length=4, population=40, generations=60), [rng(seed)])
    assert costs[0, 0] == cost(every).min() and torch.equal(found[0, 0], every[cost(every).argmin()])
    assert (costs[0].diff() >= 0).all()


def test_the_best_never_gets_worse_and_only_children_are_asked_about() -> None:
    best: list[float] = []
    asked: list[tuple[int, ...]] = []

    def cost(strings: Tensor) -> Tensor:
        asked.append(tuple(strings.shape))
        values = (strings - 7).square().sum(-1).float()
        best.append(float(values.min()) if not best else min(best[-1], float(values.min())))
        return values

    how = Breeding(genes=50, length=6, population=10, generations=30)
    _, costs = evolve(cost, how, [rng()])
    assert float(costs[0, 0]) == best[-1] and asked == [(1, 10, 6)] + [(1, 5, 6)] * 30


def test_problems_do_not_depend_on_their_neighbours() -> None:
    goal = torch.tensor([[1, 2, 3], [7, 8, 9]])
    how = Breeding(genes=10, length=3, population=9, generations=5)
    both, _ = evolve(lambda s: (s - goal[:, None]).abs().sum(-1).float(), how, [rng(1), rng(2)])
    for i in range(2):
        alone, _ = evolve(lambda s, i=i: (s - goal[i]).abs().sum(-1).float(), how, [rng(1 + i)])
        assert torch.equal(alone[0], both[i])


def test_without_mutation_and_crossover_children_are_copies() -> None:
    parents = torch.arange(12).view(4, 3)
    how = Breeding(genes=99, length=3, population=8, mutation=0.0, crossover=0.0)
    children = {tuple(c) for c in breed(parents, how, rng()).tolist()}
    assert children <= {tuple(p) for p in parents.tolist()}


def test_crossover_takes_a_beginning_of_one_and_the_end_of_another() -> None:
    parents = torch.arange(40).view(4, 10)
    how = Breeding(genes=99, length=10, population=400, mutation=0.0, crossover=1.0)
    children = breed(parents, how, rng())
    owner = children // 10
    assert torch.equal(children % 10, torch.arange(10).expand_as(children))
    assert ((owner.diff(dim=1) != 0).sum(1) <= 1).all() and (owner.diff(dim=1) != 0).any()


def test_mutation_draws_one_gene_anew_as_often_as_asked() -> None:
    parents = torch.zeros((4, 8), dtype=torch.long)
    how = Breeding(genes=10**6, length=8, population=8000, mutation=0.25, crossover=0.5)
    changed = (breed(parents, how, rng()) != 0).sum(1)
    assert changed.max() == 1 and abs(float(changed.float().mean()) - 0.25) < 0.03


def test_ranking_sorts_strings_with_their_costs() -> None:
    people, costs = rank(torch.tensor([[[1], [2], [3]]]), torch.tensor([[3.0, 1.0, 2.0]]))
    assert people.flatten().tolist() == [2, 3, 1] and costs.flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("field", "value"), [("genes", 0), ("length", 0), ("population", 3), ("generations", -1), ("mutation", 1.5)]
)
def test_bad_settings_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Breeding(**{"genes": 5, "length": 4, field: value})  # type: ignore[arg-type]
