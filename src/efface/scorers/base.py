"""What every scorer is: something that looks at pictures and says one thing of each."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ..suites import Row


@dataclass(frozen=True)
class Score:
    """What one scorer says of one picture."""

    value: float | None
    """The number, or None where the picture could not be judged."""
    answer: tuple[str, ...] = ()
    """The scorer's answers in words, best first."""
    explanation: str = ""
    """Why, for a person to read."""


class Scorer(Protocol):
    """A frozen dataclass with settings and a `score`; it owns its networks and never uses those being edited."""

    version: ClassVar[str]

    @property
    def name(self) -> str:
        """Names the column; two scorers of one evaluation may not share it."""
        ...

    @property
    def asks(self) -> str:
        """The question that it answers: "object", "style", "background" or "match" (with the prompt)."""
        ...

    def identity(self) -> dict[str, str]:
        """Everything on which its answers depend (version, weights, settings): scores are cached under it."""
        ...

    def score(self, images: Tensor, rows: Sequence[Row]) -> list[Score]:
        """One score per picture.  `images`: uint8 [n, 3, h, w]; `rows`: what each was asked to show."""
        ...


@functools.cache
def weights_digest(folder: str) -> str:
    """sha256 over the names and contents of a network's folder; a hub id stands for itself."""
    place = Path(folder)
    if not place.is_dir():
        return folder
    total = hashlib.sha256()
    for file in sorted(p for p in place.rglob("*") if p.is_file()):
        total.update(f"{file.relative_to(place).as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def enlarged(images: Tensor, side: int) -> Tensor:
    """uint8 pictures [n, 3, h, w] at least `side` high: smaller ones than the judge learned from are blown up."""
    if images.shape[-2] >= side:
        return images
    big = torch.nn.functional.interpolate(images.float(), size=(side, side), mode="bicubic", antialias=True)
    return big.round().clamp(0, 255).to(torch.uint8)
