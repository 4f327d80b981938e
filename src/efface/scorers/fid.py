"""FID (Heusel et al. 2017): how far the edited model's pictures are, as a set, from the base's; by torchmetrics.

    ||mu_x - mu_y||^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)) of the features' means and covariances

It is biased upwards by an amount that depends on the number of pictures: below 2,000 in each set it is refused, and KID
should be used. `_sets.py` says which sets are compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn

from ..suites.spec import Row
from ._sets import Compared
from .base import Better, TooFew

LEAST = 2000


@final
@dataclass(frozen=True, kw_only=True)
class Fid(Compared):
    """Frechet distance of the edited model's pictures from the base's, or from reference pictures."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "FID"
    unit: ClassVar[str] = "squared distance"
    better: ClassVar[Better] = "lower"
    packages: ClassVar[tuple[str, ...]] = ("torchmetrics",)
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    blocks: ClassVar[int] = 8  # each takes an eigendecomposition of as many columns as there are features
    least: int = LEAST
    """Smallest number of pictures in each of the two sets; with fewer there is no score."""
    name: str = "fid"

    def check(self, rows: Sequence[Row]) -> None:
        """Raises TooFew where there are not enough pictures; otherwise what every scorer of sets raises."""
        self.check_packages()
        if self.count_pictures(len(rows)) < self.least:
            raise TooFew(
                f"scorer {self.name} needs {self.least} pictures in each set, and the largest has "
                f"{self.count_pictures(len(rows))}; kid would have worked, or more pictures"
            )

    def compute_number(self, known: Tensor, x: Tensor) -> float:
        return fid(known, x)


class _Given(nn.Module):
    """Passes on features that were computed before."""

    def __init__(self, features: int) -> None:
        nn.Module.__init__(self)
        self.num_features = features

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(x: Tensor, y: Tensor) -> float:
    """FID of features [n, d] and [m, d]."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Given(x.shape[1]))
    metric.update(x.double(), real=True)
    metric.update(y.double(), real=False)
    return float(metric.compute())
