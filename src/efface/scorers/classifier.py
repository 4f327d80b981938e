"""Any image classifier in transformers form: what does the picture show?

The most likely labels with their probabilities. Value: the probability of what the row asked for. Labels are the
network's own (`id2label`), where ImageNet's list synonyms after commas; a network that names none ("LABEL_0") is given
a file of names.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from ..catalog import did_you_mean
from ..functional.rates import names_of
from ..suites.spec import Row
from .base import Score, device, file_digest, prepared, weights_digest

TOP = 6
"""One more than top-5 needs: of two things in a picture, either may come first."""


@final
@dataclass(frozen=True)
class Classifier:
    """The most likely labels of a picture, by any transformers image classifier."""

    version: ClassVar[str] = "3"
    folder: str
    """Folder or hub id of the classifier."""
    asks: str = "object"
    """What its labels name: "object" or "style"."""
    name: str = "classifier"
    names: str = ""
    """File with a label a line, in the order of the network's outputs; the network's own labels by default."""
    batch: int = 64

    def identity(self) -> dict[str, str]:
        facts = {"scorer": "classifier", "version": self.version, "asks": self.asks}
        named = {"names": file_digest(self.names)} if self.names else {}
        return facts | {"weights": weights_digest(self.folder)} | named

    def check(self, rows: Sequence[Row]) -> None:
        """Raises ValueError where its labels have no names, or no name for what a row asks it for."""
        known = self.labels().values()
        if all(re.fullmatch(r"LABEL_\d+", label) for label in known):
            raise ValueError(f"the labels of {self.folder} have no names; give them: {self.name},names=FILE")
        every_name(self.name, self.asks, list(known), rows)

    def labels(self) -> dict[int, str]:
        """Label by output."""
        own: dict[int, str] = dict(AutoConfig.from_pretrained(self.folder).id2label or {})  # type: ignore[arg-type]
        if not self.names:
            return own
        given = Path(self.names).read_text(encoding="utf-8").splitlines()
        if len(given) != len(own):
            raise ValueError(f"{self.names} has {len(given)} lines; {self.folder} has {len(own)} outputs")
        return dict(enumerate(given))

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        model, processor = _load(self.folder)
        labels = self.labels() if self.names else model.config.id2label
        out: list[Score] = []
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            with torch.inference_mode():
                seen = model(**prepared(processor, images[start : start + self.batch]))
            logits = seen.logits.float().cpu()
            out += [said(p, labels, row, self.asks) for p, row in zip(logits.softmax(-1), part, strict=True)]
        return out


def said(probabilities: Tensor, labels: Mapping[int, str], row: Row, asks: str) -> Score:
    """The most likely labels; the value is the probability of what the row asked for."""
    best = probabilities.topk(min(TOP, len(labels)))
    answer, sure = tuple(labels[int(i)] for i in best.indices), tuple(best.values.tolist())
    names = frozenset().union(*(names_of(n) for n in wanted(row, asks)))
    hit = [float(probabilities[i]) for i, label in labels.items() if not names_of(label).isdisjoint(names)]
    words = ", ".join(f"{label} {p:.2f}" for label, p in zip(answer, sure, strict=True))
    return Score(sum(hit), answer, words, sure)


def wanted(row: Row, asks: str) -> tuple[str, ...]:
    """The labels that count for a row where the question is `asks`: its own, or the other thing that it names."""
    other = {"object": row.thing, "style": row.style}.get(asks, "")
    return row.counts if asks == row.asks else (other,) if other else ()


def every_name(scorer: str, asks: str, labels: Sequence[str], rows: Sequence[Row]) -> None:
    """ValueError where a row asks for something that none of these labels names: it would never be seen."""
    known = frozenset().union(*(names_of(label) for label in labels))
    for row in rows:
        names = [names_of(n) for n in wanted(row, asks)]
        if names and not known & frozenset().union(*names):
            asked = wanted(row, asks)[0]
            more = sum(1 for r in rows if wanted(r, asks) == wanted(row, asks))
            raise ValueError(
                f"scorer {scorer} has no label {asked!r}, which {more} rows ask for{did_you_mean(asked, labels)}; "
                "leave the scorer out, or give one that knows it"
            )


@functools.cache
def _load(folder: str) -> tuple[Any, Any]:
    model: Any = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return model.to(device()), AutoImageProcessor.from_pretrained(folder)
