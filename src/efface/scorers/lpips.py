"""LPIPS (Zhang et al. 2018) to the base's picture of the same prompt and seed, by torchmetrics.

The value is 0 where nothing changed. The network is AlexNet by default, as in the artist protocol of EAP; it comes with
torchvision, which fetches the weights at the first use.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from ..concept import require_positive
from ..suites.spec import Row
from .base import Better, Score, cache_by_device, pick_device, require_package

Net = Literal["alex", "vgg", "squeeze"]


@final
@dataclass(frozen=True)
class Lpips:
    """Learned perceptual distance to the base's picture."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "LPIPS from the base"
    unit: ClassVar[str] = "distance"
    better: ClassVar[Better] = "lower"
    share: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    net: Net = "alex"
    """The network that looks: alex, vgg or squeeze."""
    name: str = "lpips"
    batch: int = 16

    def __post_init__(self) -> None:
        if self.net not in get_args(Net):
            raise ValueError(f"lpips has no net {self.net!r}; there are {', '.join(get_args(Net))}")
        require_positive(self, "batch")

    @property
    def question(self) -> str:
        return "change"

    def identify(self) -> dict[str, str]:
        facts = {"scorer": "lpips", "version": self.version, "asks": "change"}
        return facts | {"by": "torchmetrics", "net": self.net}

    def check(self, rows: Sequence[Row]) -> None:
        """Raises ValueError where torchmetrics or torchvision is not installed."""
        require_package("lpips", "torchmetrics", "efface[fid]")
        require_package("lpips", "torchvision", "torchvision")

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        network = _load(self.net)
        out: list[Score] = []
        for start in range(0, len(rows), self.batch):
            both = [p[start : start + self.batch].to(pick_device()).float() / 127.5 - 1 for p in (images, before)]
            with torch.inference_mode():
                apart = network(*both).flatten().cpu()
            out += [Score(float(d), (), f"LPIPS ({self.net}) {float(d):.3f}") for d in apart]
        return out


@cache_by_device
def _load(net: Net):
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type=net).net.eval().to(pick_device())
