"""The genetic search: what its operators may do, and that it finds what brute force finds."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from efface.functional.genetic import Breeding, breed, evolve


def build_rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_the_best_string_there_is(seed: int) -> None:
    table = torch.rand((4, 6), generator=build_rng(seed))
    every = torch.tensor(list(itertools.product(range(6), repeat=4)))
    judged: list[Tensor] = []

    def cost(strings: Tensor, owner: Tensor | None = None) -> Tensor:
        judged.append(strings)
        return table[torch.arange(4), strings].sum(-1)

    how = Breeding(genes=6, length=4, population=40, generations=60)
    ((found, costs),) = evolve(cost, how, [build_rng(seed)], keep=9)
    seen = torch.cat(judged).unique(dim=0)
    assert torch.equal(found[0], every[cost(every).argmin()]) and costs[0] == cost(every).min()
    best = seen[cost(seen).argsort()[:9]]
    assert {tuple(row) for row in found.tolist()} == {tuple(row) for row in best.tolist()}
    assert (costs.diff() >= 0).all() and torch.equal(cost(found), costs)
    ((alone, _),) = evolve(cost, how, [build_rng(seed)])
    ((two, _),) = evolve(cost, how, [build_rng(seed)], keep=2)
    assert torch.equal(alone, found[:1]) and torch.equal(two, found[:2])


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_what_has_no_chance_never_happens_and_what_is_sure_always_does(chance: float, monkeypatch) -> None:
    """Also where the random number is 0, the least there is."""
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.zeros(*shape))
    parents = torch.full((4, 3), 7)
    children = breed(parents, Breeding(genes=7, length=3, mutation=0.0, crossover=chance), build_rng())
    assert torch.equal(children, torch.full((12 if chance else 4, 3), 7))
    mutants = breed(parents, Breeding(genes=7, length=3, mutation=chance, crossover=0.0), build_rng())
    assert (mutants != parents).sum(dim=1).tolist() == [round(chance)] * 4


def test_what_is_found_is_the_last_generations_best_even_where_a_better_one_was_lost() -> None:
    """As in the authors' code, which keeps no record; what was lost comes second."""
    for seed in range(20):
        judged: list[Tensor] = []

        def cost(strings: Tensor, owner: Tensor, judged: list[Tensor] = judged) -> Tensor:
            judged.append(strings)
            return (strings - 50).abs().sum(-1).float()

        how = Breeding(genes=100, length=3, population=6, generations=4, mutation=1.0)
        ((_, costs),) = evolve(cost, how, [build_rng(seed)], keep=3)
        last = (judged[3] - 50).abs().sum(-1)
        assert costs[0] == last.min()
        every = torch.cat(judged).unique(dim=0)
        best = (every - 50).abs().sum(-1).sort().values
        assert sorted(costs.tolist())[:2] == best[:2].tolist() or costs[0] > best[1]
        if costs[0] > best[0]:
            assert costs[1] == best[0]
            return
    raise AssertionError("no better one was ever lost")


def test_every_member_is_judged_in_every_generation() -> None:
    """About as many evaluations as generations times the first population: 600,000 at the paper's values."""
    asked: list[int] = []

    def cost(strings: Tensor, owner: Tensor) -> Tensor:
        asked.append(len(strings))
        return (strings - 7).square().sum(-1).float()

    how = Breeding(genes=50, length=6, population=40, generations=200)
    evolve(cost, how, [build_rng()])
    assert len(asked) == 200 and asked[0] == 40
    assert 20 <= min(asked) < max(asked) <= 60 and abs(sum(asked) / 200 - 40) < 2


def test_problems_do_not_depend_on_their_neighbours() -> None:
    goal = torch.tensor([[1, 2, 3], [7, 8, 9]])
    how = Breeding(genes=10, length=3, population=9, generations=5)
    both = evolve(lambda s, of: (s - goal[of]).abs().sum(-1).float(), how, [build_rng(1), build_rng(2)], keep=4)
    for i in range(2):
        (alone,) = evolve(lambda s, of, i=i: (s - goal[i]).abs().sum(-1).float(), how, [build_rng(1 + i)], keep=4)
        assert all(torch.equal(one, other) for one, other in zip(alone, both[i], strict=True))


def test_breeding_is_the_authors_loops() -> None:
    """Survivor by survivor and member by member, in the order of their notebook; the draws are the same."""
    survivors, how = torch.randint(90, (12, 5), generator=build_rng(1)), Breeding(genes=90, length=5, population=24)
    draws = build_rng(3)
    partner, cut = torch.randint(12, (12,), generator=draws).tolist(), torch.randint(5, (12, 1), generator=draws)
    meets = (torch.rand(12, generator=draws) < 0.5).tolist()
    rows = survivors.tolist()
    people, first, second = list(rows), [], []
    for i in range(12):
        if meets[i]:
            at = int(cut[i])
            first.append(rows[i][:at] + rows[partner[i]][at:])
            second.append(rows[partner[i]][:at] + rows[i][at:])
    people = [list(row) for row in people + first + second]
    place, new = (
        torch.randint(5, (len(people), 1), generator=draws),
        torch.randint(90, (len(people), 1), generator=draws),
    )
    changes = torch.rand((len(people), 1), generator=draws) < 0.25
    for i, row in enumerate(people):
        if changes[i]:
            row[int(place[i])] = int(new[i])
    assert breed(survivors, how, build_rng(3)).tolist() == people
    assert len(first) > 1 and changes[:12].any()


def test_without_mutation_and_crossover_the_survivors_stay_alone() -> None:
    parents = torch.arange(12).view(4, 3)
    how = Breeding(genes=99, length=3, population=8, mutation=0.0, crossover=0.0)
    assert torch.equal(breed(parents, how, build_rng()), parents)


def test_mutation_draws_one_gene_anew_as_often_as_asked() -> None:
    parents = torch.zeros((4000, 8), dtype=torch.long)
    how = Breeding(genes=10**6, length=8, population=8000, mutation=0.25, crossover=0.5)
    changed = (breed(parents, how, build_rng()) != 0).sum(1)
    assert changed.max() == 1 and abs(float(changed.float().mean()) - 0.25) < 0.03


@pytest.mark.parametrize(
    ("field", "value"), [("genes", 0), ("length", 0), ("population", 3), ("generations", 0), ("mutation", 1.5)]
)
def test_bad_settings_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Breeding(**{"genes": 5, "length": 4, field: value})  # type: ignore[arg-type]


def test_the_least_settings_are_served() -> None:
    how = Breeding(genes=1, length=1, population=4, generations=1)
    ((found, costs),) = evolve(lambda strings, _: strings.sum(-1).float(), how, [build_rng()])
    assert found.tolist() == [[0]] and costs.tolist() == [0]
