"""SSIM (Wang et al. 2004) to the base's picture of the same prompt and seed, by torchmetrics.

The value is 1 where nothing changed, and about 0 for unrelated pictures. The window is Gaussian, of 11 pixels and sigma
1.5, and the range 255; the mean is over all pixels, with pictures mirrored at their borders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..suites.spec import Row
from .base import Better, Score, require_package


@final
@dataclass(frozen=True)
class Ssim:
    """Structural similarity to the base's picture, at most 1."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "SSIM to the base"
    unit: ClassVar[str] = "similarity"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    name: str = "ssim"

    @property
    def question(self) -> str:
        return "change"

    def identify(self) -> dict[str, str]:
        return {"scorer": "ssim", "version": self.version, "asks": "change", "by": "torchmetrics"}

    def check(self, rows: Sequence[Row]) -> None:
        """Raises ValueError where torchmetrics is not installed."""
        require_package("ssim", "torchmetrics", "efface[fid]")

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        from torchmetrics.functional.image import structural_similarity_index_measure

        # Single precision is eight times faster, and differs by at most 1e-4, where a picture is flat.
        found = structural_similarity_index_measure(images.float(), before.float(), reduction="none", data_range=255.0)
        return [Score(float(s), (), f"SSIM {float(s):.3f}") for s in torch.as_tensor(found).flatten()]
