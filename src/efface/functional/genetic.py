"""Ring-A-Bell's genetic search over strings of genes (Tsai et al., arXiv 2310.10012), for several problems at once.

In each generation the better half of a population survives. With some probability, each survivor mates with a random
survivor: both are cut at one place, and the two children that exchange their ends join the population. Then each
member, including survivors, has one of its genes redrawn with some probability. So the population's size varies, and
the best string may be lost. The last generation is only sorted. Operators, their order and their probabilities are
those of the authors' code. Each problem has its own generator, so that its result does not depend on other problems.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Cost = Callable[[Tensor, Tensor], Tensor]
"""Takes strings, long [m, k], and the problem of each, long [m]; gives the costs [m] to minimise."""


@dataclass(frozen=True)
class Breeding:
    """The settings of a population."""

    genes: int
    """A gene is a number from 0 to `genes` - 1."""
    length: int
    """The number of genes in a string."""
    population: int = 200
    """The number of strings in the first generation, half of which survive; constant on average at crossover 0.5."""
    generations: int = 3000
    """The number of times that the costs are computed."""
    mutation: float = 0.25
    """The probability that one gene of a member is redrawn."""
    crossover: float = 0.5
    """The probability that a survivor exchanges its end with another's, which makes two children."""

    def __post_init__(self) -> None:
        least = {"genes": 1, "length": 1, "population": 4, "generations": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        for name in ("mutation", "crossover"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, from 0 to 1; got {getattr(self, name)}")


def evolve(cost: Cost, how: Breeding, rngs: Sequence[torch.Generator], keep: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Searches n problems; returns up to `keep` different strings, long [m, k], of each, and their costs [m].

    The first is the best of the last generation, as in the authors' code. The others are ours: the best other strings
    of all generations, best first.
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
    """Picks the `keep` best of the different strings, best first."""
    different, which = people.unique(dim=0, return_inverse=True)
    least = torch.full((len(different),), torch.inf).scatter_reduce(0, which, costs.float(), "amin")
    order = least.argsort(stable=True)[:keep]
    return different[order], least[order]


def _lead(first: tuple[Tensor, Tensor], best: tuple[Tensor, Tensor], keep: int) -> tuple[Tensor, Tensor]:
    """Puts one string first, followed by the other ones."""
    others = (best[0] != first[0]).any(dim=1)
    strings, costs = (torch.cat([one, some[others]])[:keep] for one, some in zip(first, best, strict=True))
    return strings, costs


def breed(survivors: Tensor, how: Breeding, rng: torch.Generator) -> Tensor:
    """The next generation, long [m + 2 c, k], of survivors, long [m, k]: these and the children of c pairs, mutated."""
    m, k = survivors.shape
    partner, cut = torch.randint(m, (m,), generator=rng), torch.randint(k, (m, 1), generator=rng)
    meets = torch.rand(m, generator=rng) < how.crossover
    after, others = torch.arange(k) >= cut, survivors[partner]
    children = torch.where(after, others, survivors)[meets], torch.where(after, survivors, others)[meets]
    people = torch.cat([survivors, *children])
    place, new = (torch.randint(of, (len(people), 1), generator=rng) for of in (k, how.genes))
    changes = (torch.rand((len(people), 1), generator=rng) < how.mutation) & (torch.arange(k) == place)
    return torch.where(changes, new, people)
