"""Distance in pixels between a picture and the base's picture of the same prompt and seed.

The value is the mean absolute difference of all channels, as a share of their range; it is 0 where nothing changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from ..suites.spec import Row
from .base import Better, Score


@final
@dataclass(frozen=True)
class Pixels:
    """Mean absolute difference from the base's picture, in [0, 1]."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "pixel distance from the base"
    unit: ClassVar[str] = "share of the range"
    better: ClassVar[Better] = "lower"
    share: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    name: str = "pixels"

    @property
    def question(self) -> str:
        return "change"

    def identify(self) -> dict[str, str]:
        return {"scorer": "pixels", "version": self.version, "asks": "change"}

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        apart = (images.double() - before.double()).abs().mean(dim=(1, 2, 3)) / 255
        return [Score(float(d), (), f"{float(d):.2%} of the range") for d in apart]
