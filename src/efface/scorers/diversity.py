"""Diversity: how much the pictures of one concept differ from each other, before and after the edit.

    mean over concepts of the mean of 1 - cos(f_i, f_j) over pairs of its pictures, f a feature network

A model that draws one picture for every prompt and seed has a diversity of 0. The number is our own; the most similar
published one is the mean pairwise LPIPS. Concepts with fewer than three pictures are left out.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor
from torch.nn import functional as F

from ..concept import require_positive
from ..suites.spec import Row
from ._features import INCEPTION, Features
from ._sets import assign_clusters, jackknife
from .base import Better, Network, Spread


@final
@dataclass(frozen=True)
class Diversity:
    """Mean distance between pictures of the same concept."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "diversity (1 - cosine between pictures of a concept)"
    unit: ClassVar[str] = "1 - cosine"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, 2.0)
    folder: str = INCEPTION
    """Folder or hub id of an image classifier or CLIP that gives the features, or "inception"."""
    least: int = 20
    """Pictures in all, at least: fewer give no number."""
    name: str = "diversity"

    def __post_init__(self) -> None:
        require_positive(self, "least")

    @property
    def question(self) -> str:
        return "set"

    @property
    def network(self) -> Network:
        return Features(self.folder)

    def identify(self) -> dict[str, str]:
        facts = {"scorer": "diversity", "version": self.version, "asks": "set", "least": str(self.least)}
        return facts | self.network.identify()

    def check(self, rows: Sequence[Row]) -> None:
        """Raises ValueError or OSError where the network is missing."""
        Features(self.folder).check(self.name)

    def compare(self, base: Tensor, edited: Tensor, rows: Sequence[Row], side: int) -> tuple[Spread, Spread] | None:
        concepts = [r.concept for r in rows]
        count = Counter(concepts)
        several = [i for i, c in enumerate(concepts) if count[c] > 2]
        if len(several) < max(self.least, 1):
            return None
        names = [concepts[i] for i in several]
        of = assign_clusters(names)
        found = [
            jackknife(lambda at, x=x[several]: measure_diversity(x[at], [names[i] for i in at]), of, len(several))
            for x in (base, edited)
        ]
        return found[0], found[1]


def measure_diversity(features: Tensor, concepts: Sequence[str]) -> float:
    """The mean over concepts of the mean distance between their features [n, d]; single pictures are left out."""
    means = []
    for concept in dict.fromkeys(concepts):
        own = F.normalize(features[[c == concept for c in concepts]].double())
        n = len(own)
        if n > 1:
            means.append(1 - float((own.sum(0).square().sum() - own.square().sum()) / (n * (n - 1))))
    return math.fsum(means) / len(means)
