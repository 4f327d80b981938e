"""The background of a picture: the palette colour nearest to the median colour of its border.

The value is 1 if that is the background that the prompt named, 0 if it is another, and None if it named none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..suites.spec import Row
from .base import Better, Score


@final
@dataclass(frozen=True)
class Background:
    """Which of the named background colours a picture has."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "background kept"
    unit: ClassVar[str] = "share of pictures"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    palette: tuple[tuple[str, tuple[int, int, int]], ...]
    """Names and RGB values (0 to 255) of the backgrounds."""
    name: str = "background"

    @property
    def question(self) -> str:
        return "background"

    def identify(self) -> dict[str, str]:
        colours = "; ".join(f"{name} {r},{g},{b}" for name, (r, g, b) in self.palette)
        return {"scorer": "background", "version": self.version, "asks": "background", "palette": colours}

    def concerns(self, row: Row) -> bool:
        """Whether the prompt named a background."""
        return bool(row.background)

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        pixels = images.float()
        sides = (pixels[:, :, 0], pixels[:, :, -1], pixels[:, :, 1:-1, 0], pixels[:, :, 1:-1, -1])
        median = torch.cat(sides, dim=2).median(dim=2).values
        colours = torch.tensor([rgb for _, rgb in self.palette], dtype=torch.float32)
        order = torch.cdist(median, colours).argsort(dim=1)[:, :3]
        names = [name for name, _ in self.palette]
        out = []
        for row, best, rgb in zip(rows, order.tolist(), median.tolist(), strict=True):
            answer = tuple(names[i] for i in best)
            value = float(answer[0] == row.background) if row.background else None
            out.append(Score(value, answer, "border is rgb({:.0f}, {:.0f}, {:.0f})".format(*rgb)))
        return out
