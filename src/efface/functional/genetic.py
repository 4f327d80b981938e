"""A genetic search over strings of genes, for several problems at once.

Each generation the better half of a population stays and breeds the other half: with some probability a child is made
of two parents, cut at one place, else it is the copy of one; with some probability one of its genes is drawn anew. The
operators and their probabilities are those of Ring-A-Bell (Tsai et al., arXiv 2310.10012); how they follow one another
is ours. Each problem has a generator of its own, so that its result does not depend on those solved beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Cost = Callable[[Tensor], Tensor]
"""From strings long [n, m, k], m of each of n problems, to what is to be small [n, m]."""


@dataclass(frozen=True)
class Breeding:
    """How a population is made and changes."""

    genes: int
    """A gene is a number from 0 to `genes` - 1."""
    length: int
    """Genes in a string."""
    population: int = 200
    generations: int = 3000
    mutation: float = 0.25
    """Probability that one gene of a child is drawn anew."""
    crossover: float = 0.5
    """Probability that a child has two parents."""

    def __post_init__(self) -> None:
        least = {"genes": 1, "length": 1, "population": 4, "generations": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        for name in ("mutation", "crossover"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, from 0 to 1; got {getattr(self, name)}")


def evolve(cost: Cost, how: Breeding, rngs: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
    """The last population long [n, p, k] of each of n problems, best first, and its costs [n, p].

    The least cost never rises from one generation to the next.
    """
    shape = (how.population, how.length)
    people = torch.stack([torch.randint(how.genes, shape, generator=rng) for rng in rngs])
    costs = cost(people)
    for _ in range(how.generations):
        people, costs = rank(people, costs)
        keep = how.population - how.population // 2
        children = torch.stack([breed(parents, how, rng) for parents, rng in zip(people[:, :keep], rngs, strict=True)])
        people = torch.cat([people[:, :keep], children], dim=1)
        costs = torch.cat([costs[:, :keep], cost(children)], dim=1)
    return rank(people, costs)


def rank(people: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
    """Each population and its costs, best first."""
    order = costs.argsort(dim=1, stable=True)
    return people.gather(1, order[:, :, None].expand_as(people)), costs.gather(1, order)


def breed(parents: Tensor, how: Breeding, rng: torch.Generator) -> Tensor:
    """The children long [p // 2, k] of parents long [m, k]."""
    n, k = how.population // 2, how.length
    mother, father = torch.randint(len(parents), (2, n), generator=rng)
    cut = torch.randint(k + 1, (n, 1), generator=rng)
    two = torch.rand((n, 1), generator=rng) < how.crossover
    children = torch.where(two & (torch.arange(k) >= cut), parents[father], parents[mother])
    new = torch.randint(how.genes, (n, 1), generator=rng)
    place = torch.randint(k, (n, 1), generator=rng)
    changes = (torch.rand((n, 1), generator=rng) < how.mutation) & (torch.arange(k) == place)
    return torch.where(changes, new, children)
