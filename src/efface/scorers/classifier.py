"""Any image classifier in transformers form: what does the picture show?

The most likely labels with their probabilities. Value: the probability of what the row asked for.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification

from ..functional.rates import names_of
from ..suites import Row
from .base import Score, enlarged, weights_digest

TOP = 6
"""One more than top-5 needs: of two things in a picture, either may come first."""


@dataclass(frozen=True)
class Classifier:
    """The most likely labels of a picture, by any transformers image classifier."""

    version: ClassVar[str] = "2"
    folder: str
    """Folder or hub id of the classifier."""
    asks: str = "object"
    """What its labels name: "object" or "style"."""
    name: str = "classifier"
    batch: int = 64

    def identity(self) -> dict[str, str]:
        weights = weights_digest(self.folder)
        return {"scorer": "classifier", "version": self.version, "asks": self.asks, "weights": weights}

    def score(self, images: Tensor, rows: Sequence[Row]) -> list[Score]:
        model, processor = _load(self.folder)
        labels = model.config.id2label
        out: list[Score] = []
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            shown = enlarged(images[start : start + self.batch], processor.size.get("shortest_edge", 0))
            pixels = processor(images=list(shown), return_tensors="pt")
            with torch.inference_mode():
                logits = model(**pixels).logits.float()
            out += [self._say(p, labels, row) for p, row in zip(logits.softmax(-1), part, strict=True)]
        return out

    def _say(self, probabilities: Tensor, labels: dict[int, str], row: Row) -> Score:
        best = probabilities.topk(min(TOP, len(labels)))
        answer = tuple(labels[int(i)] for i in best.indices)
        said = ", ".join(f"{label} {p:.2f}" for label, p in zip(answer, best.values.tolist(), strict=True))
        wanted = row.counts if self.asks == row.asks else tuple(n for n in (getattr(row, _FIELD[self.asks]),) if n)
        names = frozenset().union(*(names_of(n) for n in wanted))
        hit = [float(probabilities[i]) for i, label in labels.items() if not names_of(label).isdisjoint(names)]
        return Score(sum(hit), answer, said)


_FIELD = {"object": "thing", "style": "style"}


@functools.cache
def _load(folder: str):
    model = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoImageProcessor.from_pretrained(folder)
