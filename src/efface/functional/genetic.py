"""Ring-A-Bell's genetic search over strings of genes (Tsai et al., arXiv 2310.10012), for several problems at once.

Each generation the better half of a population survives. Each survivor meets, with some probability, one drawn among
all of them; they are cut at one place, and both children that exchange their ends join the population. Then each
member, survivors included, has with some probability one of its genes drawn anew. So the population's size varies, and
the best so far may be lost. The last generation is only sorted. Operators, their order and their probabilities are
those of the authors' code. Each problem has a generator of its own, so that its result does not depend on those solved
beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Cost = Callable[[Tensor, Tensor], Tensor]
"""From strings long [m, k] of several problems, and which problem each is of, long [m], to what is to be small [m]."""


@dataclass(frozen=True)
class Breeding:
    """How a population is made and changes."""

    genes: int
    """A gene is a number from 0 to `genes` - 1."""
    length: int
    """Genes in a string."""
    population: int = 200
    """Strings in the first generation; half as many survive each. On average it stays as large at crossover 0.5."""
    generations: int = 3000
    """Times that the strings are judged."""
    mutation: float = 0.25
    """Probability that one gene of a member is drawn anew."""
    crossover: float = 0.5
    """Probability that a survivor exchanges its end with another's, which makes two children."""

    def __post_init__(self) -> None:
        least = {"genes": 1, "length": 1, "population": 4, "generations": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        for name in ("mutation", "crossover"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, from 0 to 1; got {getattr(self, name)}")


def evolve(cost: Cost, how: Breeding, rngs: Sequence[torch.Generator], keep: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Up to `keep` different strings long [m, k] of each of n problems, and their costs [m].

    The first is the best of the last generation, which the authors take. The others, ours, are the best that were ever
    judged beside it, best first.
    """
    people = [torch.randint(how.genes, (how.population, how.length), generator=rng) for rng in rngs]
    best: list[tuple[Tensor, Tensor]] = [(each[:0], torch.zeros(0)) for each in people]
    for generation in range(how.generations):
        sizes = [len(each) for each in people]
        owner = torch.arange(len(people)).repeat_interleave(torch.tensor(sizes))
        costs = cost(torch.cat(people), owner).split(sizes)
        if keep > 1:
            pairs = zip(people, costs, best, strict=True)
            best = [_pick(torch.cat([old, new]), torch.cat([was, now]), keep) for new, now, (old, was) in pairs]
        orders = [each.argsort(stable=True)[: how.population // 2] for each in costs]
        people = [each[order] for each, order in zip(people, orders, strict=True)]
        if generation < how.generations - 1:
            people = [breed(each, how, rng) for each, rng in zip(people, rngs, strict=True)]
            continue
        first = [(each[:1], now[order[:1]]) for each, now, order in zip(people, costs, orders, strict=True)]
        return [_lead(*pair, keep) for pair in zip(first, best, strict=True)]
    raise AssertionError("there is at least one generation")


def _pick(people: Tensor, costs: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The `keep` best of the different strings, best first."""
    different, which = people.unique(dim=0, return_inverse=True)
    least = torch.full((len(different),), torch.inf).scatter_reduce(0, which, costs.float(), "amin")
    order = least.argsort(stable=True)[:keep]
    return different[order], least[order]


def _lead(first: tuple[Tensor, Tensor], best: tuple[Tensor, Tensor], keep: int) -> tuple[Tensor, Tensor]:
    """One string, then the others of some."""
    others = (best[0] != first[0]).any(dim=1)
    strings, costs = (torch.cat([one, some[others]])[:keep] for one, some in zip(first, best, strict=True))
    return strings, costs


def breed(survivors: Tensor, how: Breeding, rng: torch.Generator) -> Tensor:
    """The next generation long [m + 2 c, k] of survivors long [m, k]: they and the children of c of them, mutated."""
    m, k = survivors.shape
    partner, cut = torch.randint(m, (m,), generator=rng), torch.randint(k, (m, 1), generator=rng)
    meets = torch.rand(m, generator=rng) < how.crossover
    after, others = torch.arange(k) >= cut, survivors[partner]
    children = torch.where(after, others, survivors)[meets], torch.where(after, survivors, others)[meets]
    people = torch.cat([survivors, *children])
    place, new = (torch.randint(of, (len(people), 1), generator=rng) for of in (k, how.genes))
    changes = (torch.rand((len(people), 1), generator=rng) < how.mutation) & (torch.arange(k) == place)
    return torch.where(changes, new, people)
