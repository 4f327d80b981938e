"""The base of scorers of sets: which rows are compared with which, and jackknife intervals.

An edited model draws the same prompts from the same seeds as the base, so its pictures are no independent sample beside
the base's: an edit that changes nothing would give a distance below zero, or of zero at any number of pictures. So the
rows are split into two halves, with each concept's rows in turn, and compared crosswise:

    base number   = D(base A, base B)                                what two halves of the base's own differ by
    edited number = mean of D(base A, edited B) and D(base B, edited A)

Both use sets of one size, so that a bias that depends on the size (FID's, precision's) is the same in both, and their
difference is the effect of the edit. With a folder of reference pictures, all pictures are compared with those instead.

Intervals leave out one cluster at a time (Efron and Stein 1981): a concept if there are at least ten, otherwise a block
of rows, and then they hold for pictures of just these concepts. The interval over m clusters is
value +- z sqrt((m - 1) / m sum_j (D_-j - mean D)^2).
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

from ..concept import require_positive
from ..files import list_pictures, read_in_pieces
from ..functional.rates import Z95
from ..suites.spec import Row
from ._features import INCEPTION, Features
from .base import Better, Spread, TooFew, digest_weights, require_package

BLOCKS = 20
FEW = 10
ANY = (-math.inf, math.inf)


@dataclass(frozen=True, kw_only=True)
class Compared(ABC):
    """A distance, or a share, between the edited model's pictures and the base's."""

    version: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str]
    better: ClassVar[Better]
    share: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()
    """The packages that must be installed beside those of every installation."""
    blocks: ClassVar[int] = BLOCKS
    """The largest number of clusters that an interval leaves out in turn; further concepts share a cluster."""
    bounds: ClassVar[tuple[float, float]] = ANY
    """Bounds of the number."""
    folder: str = INCEPTION
    """Folder or hub id of an image classifier or CLIP that gives the features, or "inception"."""
    reference: str = ""
    """Folder of pictures to compare with; the base's own by default."""
    least: int = 20
    """Smallest number of pictures in each of the two sets; with fewer there is no score."""
    name: str = ""

    def __post_init__(self) -> None:
        require_positive(self, "least")

    @abstractmethod
    def compute_number(self, known: Tensor, x: Tensor) -> float:
        """The number for features `x` [m, d] compared with `known` [n, d], the base's or the reference's."""

    def compute_at(self, known: Tensor, x: Tensor, at: Tensor, paired: bool) -> float:
        """The number for the rows of `x` at some indices, compared with those of `known`, or with all if not paired."""
        return self.compute_number(known[at] if paired else known, x[at])

    @property
    def question(self) -> str:
        return "set"

    @property
    def network(self) -> Features:
        return Features(self.folder)

    def identify(self) -> dict[str, str]:
        facts = {"scorer": type(self).__name__.lower(), "version": self.version, "asks": "set"}
        against = digest_weights(self.reference) if self.reference else "the base's pictures, by halves"
        own = {
            f.name: str(getattr(self, f.name)) for f in fields(self) if f.name not in ("folder", "reference", "name")
        }
        return facts | self.network.identify() | {"against": against} | own

    def check(self, rows: Sequence[Row]) -> None:
        """Raises ValueError or OSError where a package or the network is missing, TooFew for few reference pictures."""
        self.check_packages()

    def check_packages(self) -> None:
        for package in self.packages:
            require_package(self.name, package, "efface[fid]")
        self.network.check(self.name)
        if self.reference and not Path(self.reference).is_dir():
            raise FileNotFoundError(f"scorer {self.name}: there is no folder {self.reference} with pictures")
        if self.reference and (held := len(list_pictures(self.reference).captions)) < self.least:
            wanted = f"scorer {self.name} needs {self.least} pictures in each set"
            raise TooFew(f"{wanted}, and {self.reference} holds {held}")

    def count_pictures(self, rows: int) -> int:
        """The number of pictures in each compared set, for this number of rows."""
        return rows if self.reference else rows // 2

    def compare(self, base: Tensor, edited: Tensor, rows: Sequence[Row], side: int) -> tuple[Spread, Spread] | None:
        size = self.count_pictures(len(rows))
        if size < self.least:
            return None
        if self.reference:
            known = _read_reference(self.reference, self.network, side)
            if len(known) < self.least:
                return None
            of = assign_clusters([r.concept for r in rows], self.blocks)
            found = [
                jackknife(lambda at, x=x: self.compute_at(known, x, at, paired=False), of, size, self.bounds)
                for x in (base, edited)
            ]
            return found[0], found[1]
        a, b = split_halves(rows)
        of = assign_clusters([rows[i].concept for i in a.tolist()], self.blocks)

        def crosswise(at: Tensor) -> float:
            one, other = (self.compute_at(base[x], edited[y], at, paired=True) for x, y in ((a, b), (b, a)))
            return (one + other) / 2

        before = jackknife(lambda at: self.compute_at(base[a], base[b], at, paired=True), of, size, self.bounds)
        return before, jackknife(crosswise, of, size, self.bounds)


def split_halves(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Splits n rows into two halves [n // 2] of places, so that neighbours by concept are in different halves."""
    order = sorted(range(len(rows)), key=lambda i: rows[i].concept)
    size = len(rows) // 2
    return torch.tensor(order[0::2][:size], dtype=torch.long), torch.tensor(order[1::2][:size], dtype=torch.long)


def assign_clusters(concepts: Sequence[str], most: int = BLOCKS) -> Tensor:
    """The cluster [n] of each row, at most `most`: its concept, or a block of rows where there are few concepts."""
    known = list(dict.fromkeys(concepts))
    if len(known) < FEW:
        return torch.arange(len(concepts)) % min(most, len(concepts))
    return torch.tensor([known.index(c) % most for c in concepts])


def jackknife(number: Callable[[Tensor], float], of: Tensor, n: int, bounds: tuple[float, float] = ANY) -> Spread:
    """Computes a number for all rows; its interval leaves out one cluster of rows at a time.

    Args:
        number: gives the number for the rows at some indices.
        of: the cluster of each row.
        n: the number of pictures that is reported.
        bounds: the smallest and largest possible number.
    """
    value = number(torch.arange(len(of)))
    left = [number((of != k).nonzero().flatten()) for k in of.unique().tolist()]
    mean = math.fsum(left) / len(left)
    half = Z95 * math.sqrt((len(left) - 1) / len(left) * math.fsum((v - mean) ** 2 for v in left))
    return Spread(value, max(bounds[0], value - half), min(bounds[1], value + half), n)


@functools.cache
def _read_reference(folder: str, network: Features, side: int) -> Tensor:
    """Features [m, d] of all pictures in a folder, scaled and cropped to squares of `side` pixels."""
    stacks = read_in_pieces(folder, side, network.batch)
    return torch.cat([network.extract_features(stack) for stack in stacks])
