"""Recall (Kynkaanniemi et al. 2019): the share of the base's pictures that the edited model could have drawn.

It is precision with the sets exchanged, and measures how much of the earlier variety is left. See `precision.py`.
"""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from ..concept import require_positive
from ._sets import Compared
from .base import Better
from .precision import measure_share_within


@final
@dataclass(frozen=True, kw_only=True)
class Recall(Compared):
    """Share of the base's pictures, or of reference pictures, that lie among the edited model's."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "recall (pictures compared with that lie among the model's)"
    unit: ClassVar[str] = "fraction of the set"
    better: ClassVar[Better] = "higher"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    k: int = 3
    """The rank k of the nearest neighbour whose distance is a picture's radius."""
    name: str = "recall"

    def __post_init__(self) -> None:
        require_positive(self, "least", "k")

    def compute_number(self, known: Tensor, x: Tensor) -> float:
        return measure_share_within(x, known, self.k)
