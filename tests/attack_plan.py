"""A model whose pictures follow a plan, and judges that read it off: what the runner does can then be told exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from efface.concept import Prompt
from efface.models.adapters.sd import StableDiffusion
from efface.scorers.base import Better, Score
from efface.suites.spec import Row
from judging_fixtures import THINGS

Plan = Callable[[str, int, bool], str]
"""Of a prompt, a seed, and whether the model is edited: the thing that the picture shows, or ""."""


@dataclass
class Planned:
    """Stands in for a model's `images`: the first pixel says which thing the plan has the picture show.

    The second is 9 where the prompt begins with "magic", and 7 where it is "gibberish 2".
    """

    model: StableDiffusion
    plan: Plan
    calls: list[tuple[str, int, bool]] = field(default_factory=list)
    """Prompt, seed and whether the model was edited, of every picture drawn."""
    starts: list[tuple[object, int]] = field(default_factory=list)
    stop_after: int = -1
    """Pictures after which the run is interrupted."""

    def __post_init__(self) -> None:
        self.watched = next(name for name in self.model.weights if "attn2" in name)
        self.original = self.model.weights[self.watched]

    def __call__(
        self, prompts: Sequence[str | Prompt], seeds: Sequence[int], *, start: object, since: int, **_: object
    ) -> Tensor:
        edited = self.model.weights[self.watched] is not self.original
        self.starts.append((start, since))
        out = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            text = prompt.text if isinstance(prompt, Prompt) else prompt
            if len(self.calls) == self.stop_after:
                raise KeyboardInterrupt
            self.calls.append((text, seed, edited))
            digest = hashlib.sha256(f"{text}/{seed}/{edited}".encode()).digest()
            picture = torch.frombuffer(bytearray(digest * 24), dtype=torch.uint8).reshape(3, 16, 16).clone()
            shown = self.plan(text, seed, edited)
            picture[:, 0, 0] = 1 + THINGS.index(shown) if shown else 0
            picture[:, 0, 1] = 7 if text == "gibberish 2" else 9 if text.startswith("magic") else 0
            out.append(picture)
        return torch.stack(out)


@dataclass(frozen=True)
class Reader:
    """A judge that sees the thing that the first pixel says."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "read"
    unit: ClassVar[str] = "of 1"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = False
    name: str = "reader"
    question: str = "object"
    blind_to: int = -1
    """The second pixel of pictures in which it sees nothing."""
    fails_on: int = -1
    """The second pixel of pictures at which it raises."""

    def identify(self) -> dict[str, str]:
        return {"scorer": "reader", **{key: str(value) for key, value in asdict(self).items()}}

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        first, second = images[:, 0, 0, 0].tolist(), images[:, 0, 0, 1].tolist()
        if self.fails_on in second:
            raise RuntimeError("not this one, please")
        seen = [
            ("none", *THINGS)[0 if mark == self.blind_to else code] for code, mark in zip(first, second, strict=True)
        ]
        return [Score(None, (name, "something")) for name in seen]
