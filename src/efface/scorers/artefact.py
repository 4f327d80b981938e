"""Artefacts: finds pictures that are flat or noise.

A picture is flat if no channel's standard deviation reaches 4 of 255. It is noise if its contrast is even (the standard
deviations within 8 x 8 blocks of the picture vary by less than 0.45 of their mean) and neighbours differ (the
correlation of adjacent cells, with the picture averaged to 16 x 16, is below 0.5), like a decoded latent of noise at
any resolution. The value is 1 if it is one of the two, else 0.

The bounds are ours: they count all white noise and all decoded latents of noise, none of the photographs that were
tried, and about one in a thousand of the embedded model's pictures, a scribble. `diversity` measures whether pictures
are alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor
from torch.nn import functional as F

from ..suites.spec import Row
from .base import Better, Score

FLAT = 4.0
EVEN = 0.45
ALIKE = 0.5
BLOCKS = 8
CELLS = 16


@final
@dataclass(frozen=True)
class Artefact:
    """Pictures that are flat or noise."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "flat or noise"
    unit: ClassVar[str] = "share of pictures"
    better: ClassVar[Better] = "lower"
    share: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    name: str = "artefact"

    @property
    def question(self) -> str:
        return "artefact"

    def identify(self) -> dict[str, str]:
        bounds = f"flat under {FLAT:g}; noise under {EVEN:g} and {ALIKE:g}"
        return {"scorer": "artefact", "version": self.version, "asks": "artefact", "bounds": bounds}

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        return [
            _build_score(*facts)
            for facts in zip(measure_contrast(images), measure_evenness(images), measure_likeness(images), strict=True)
        ]


def _build_score(contrast: float, evenness: float, likeness: float) -> Score:
    if contrast < FLAT:
        return Score(1.0, ("flat",), f"flat: standard deviation {contrast:.1f}")
    words = f"contrast varies by {evenness:.2f}, neighbours correlate by {likeness:.2f}"
    noise = evenness < EVEN and likeness < ALIKE
    return Score(float(noise), ("noise" if noise else "picture",), f"noise: {words}" if noise else words)


def measure_contrast(images: Tensor) -> list[float]:
    """The largest standard deviation of a channel, for each of n pictures [n, 3, h, w]."""
    return images.double().flatten(2).std(2).amax(1).tolist()


def measure_evenness(images: Tensor) -> list[float]:
    """The deviation of the contrast of pictures [n, 3, h, w] in BLOCKS x BLOCKS blocks, by its mean; 0 without any."""
    height, width = images.shape[-2] // BLOCKS, images.shape[-1] // BLOCKS
    blocks = images.double().mean(1).unfold(1, height, height).unfold(2, width, width)
    within = blocks.flatten(3).std(3).flatten(1)
    return (within.std(1) / within.mean(1).clamp(min=1e-9)).tolist()


def measure_likeness(images: Tensor) -> list[float]:
    """The correlation of neighbours, for each of the pictures [n, 3, h, w] averaged to CELLS x CELLS."""
    cells = F.adaptive_avg_pool2d(images.double().mean(1, keepdim=True), CELLS).squeeze(1)
    cells = cells - cells.mean((1, 2), keepdim=True)
    pairs = (cells[:, :, 1:] * cells[:, :, :-1]).mean((1, 2)) + (cells[:, 1:] * cells[:, :-1]).mean((1, 2))
    return (pairs / 2 / cells.square().mean((1, 2)).clamp(min=1e-9)).tolist()
