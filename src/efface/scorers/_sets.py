"""The base of scorers of sets: which rows are compared with which, and intervals by the jackknife.

An edited model draws the same prompts from the same seeds as the base, so its pictures are no independent sample beside
the base's: an edit that changes nothing would give a distance under zero, or of zero at any number of pictures. So the
rows are cut in two halves, each concept's rows in turn, and compared crosswise:

    base number   = D(base A, base B)                                what two halves of the base's own differ by
    edited number = mean of D(base A, edited B) and D(base B, edited A)

Both rest on sets of one size, so that a bias of that size (FID's, precision's) is the same in both, and what the edit
did is the difference. With a folder of reference pictures, all pictures are compared with those instead.

Intervals leave out one cluster at a time (Efron and Stein 1981): a concept where there are ten of them, else a block of
rows, and then they speak of pictures of just these concepts. value +- z sqrt((m - 1) / m sum_j (D_-j - mean D)^2) over
m clusters.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ..files import read_pictures
from ..functional.rates import Z95
from ..suites.spec import Row
from ._features import INCEPTION, Features
from .base import Better, Spread, require_package, weights_digest

BLOCKS = 20
FEW = 10
ANY = (-math.inf, math.inf)


@dataclass(frozen=True, kw_only=True)
class Compared(ABC):
    """A distance, or a share, of the edited model's pictures and the base's."""

    version: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str]
    better: ClassVar[Better]
    share: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()
    """What has to be installed, beside what every installation has."""
    blocks: ClassVar[int] = BLOCKS
    """Clusters at most that an interval leaves out in turn: concepts beyond that many share one."""
    bounds: ClassVar[tuple[float, float]] = ANY
    """Bounds of the number."""
    folder: str = INCEPTION
    """Folder or hub id of an image classifier or CLIP that gives the features, or "inception"."""
    reference: str = ""
    """Folder of pictures to compare with; the base's own by default."""
    least: int = 20
    """Smallest number of pictures in each of the two sets; with fewer there is no score."""
    name: str = ""

    @abstractmethod
    def number(self, known: Tensor, x: Tensor) -> float:
        """What is said of features `x` [m, d] beside `known` [n, d], the base's or the reference's."""

    @property
    def question(self) -> str:
        return "set"

    @property
    def network(self) -> Features:
        return Features(self.folder)

    def identity(self) -> dict[str, str]:
        facts = {"scorer": type(self).__name__.lower(), "version": self.version, "asks": "set"}
        against = weights_digest(self.reference) if self.reference else "the base's pictures, by halves"
        own = {
            f.name: str(getattr(self, f.name)) for f in fields(self) if f.name not in ("folder", "reference", "name")
        }
        return facts | self.network.identity() | {"against": against} | own

    def check(self, rows: Sequence[Row]) -> None:
        """Raises ValueError or OSError where a package, the network or the reference pictures are missing."""
        self.ready()

    def ready(self) -> None:
        for package in self.packages:
            require_package(self.name, package, "fid")
        self.network.check(self.name)
        if self.reference and not Path(self.reference).is_dir():
            raise FileNotFoundError(f"scorer {self.name}: there is no folder {self.reference} with pictures")

    def size(self, rows: int) -> int:
        """Pictures in each compared set."""
        return rows if self.reference else rows // 2

    def compare(self, base: Tensor, edited: Tensor, rows: Sequence[Row], side: int) -> tuple[Spread, Spread] | None:
        size = self.size(len(rows))
        if size < self.least:
            return None
        if self.reference:
            known = _reference(self.reference, self.network, side)
            of = assign_clusters([r.concept for r in rows], self.blocks)
            found = [
                jackknife(lambda at, x=x: self.number(known, x[at]), of, size, self.bounds) for x in (base, edited)
            ]
            return found[0], found[1]
        a, b = split_halves(rows)
        of = assign_clusters([rows[i].concept for i in a.tolist()], self.blocks)

        def crosswise(at: Tensor) -> float:
            return (self.number(base[a[at]], edited[b[at]]) + self.number(base[b[at]], edited[a[at]])) / 2

        before = jackknife(lambda at: self.number(base[a[at]], base[b[at]]), of, size, self.bounds)
        return before, jackknife(crosswise, of, size, self.bounds)


def split_halves(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Indices of the rows in two halves of one size: neighbours in the order of concepts go to different ones."""
    order = sorted(range(len(rows)), key=lambda i: rows[i].concept)
    size = len(rows) // 2
    return torch.tensor(order[0::2][:size], dtype=torch.long), torch.tensor(order[1::2][:size], dtype=torch.long)


def assign_clusters(concepts: Sequence[str], most: int = BLOCKS) -> Tensor:
    """The cluster of each row, of at most so many: its concept, or a block of rows where concepts are few."""
    known = list(dict.fromkeys(concepts))
    if len(known) < FEW:
        return torch.arange(len(concepts)) % min(most, len(concepts))
    return torch.tensor([known.index(c) % most for c in concepts])


def jackknife(number: Callable[[Tensor], float], of: Tensor, n: int, bounds: tuple[float, float] = ANY) -> Spread:
    """A number of the rows at some indices, taken of all of them; its interval leaves out a cluster at a time.

    Args:
        of: the cluster of each row.
        n: pictures that the number is said to rest on.
        bounds: beyond which the number can't lie.
    """
    value = number(torch.arange(len(of)))
    left = [number((of != k).nonzero().flatten()) for k in of.unique().tolist()]
    mean = math.fsum(left) / len(left)
    half = Z95 * math.sqrt((len(left) - 1) / len(left) * math.fsum((v - mean) ** 2 for v in left))
    return Spread(value, max(bounds[0], value - half), min(bounds[1], value + half), n)


@functools.cache
def _reference(folder: str, network: Features, side: int) -> Tensor:
    """Features [m, d] of all pictures in a folder, scaled and cut to squares of `side` pixels."""
    return torch.cat([network.features(stack) for stack in read_pictures(Path(folder), side).values()])
