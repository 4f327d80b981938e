"""Any image classifier of transformers: says what the picture shows.

The answers are the most likely labels with their probabilities; the value is the probability of what the row asked for.
Labels are the network's own (`id2label`), in which ImageNet's list synonyms after commas; a network without names
("LABEL_0") needs a file of names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification

from ..catalog import did_you_mean
from ..concept import check_choice, require_positive
from ..files import read_text
from ..functional.words import split_label
from ..plurals import write_count
from ..suites.spec import Row
from ._networks import open_network, open_part, read_config
from .base import Better, Score, cache_by_device, digest_file, digest_weights, pick_device, prepare_images

TOP = 6
"""The number of labels: one more than top-5 needs, because either of two things in a picture may come first."""
QUESTIONS = ("object", "style")
"""What labels may name; nudity is judged by detectors."""


@final
@dataclass(frozen=True)
class Classifier:
    """The most likely labels of a picture, by any transformers image classifier."""

    version: ClassVar[str] = "3"
    title: ClassVar[str] = "probability of what was asked for"
    unit: ClassVar[str] = "probability"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    folder: str
    """Folder or hub id of the classifier."""
    question: str = "object"
    """What its labels name: "object" or "style"."""
    name: str = "classifier"
    names: str = ""
    """File with a label a line, in the order of the network's outputs; the network's own labels by default."""
    batch: int = 64

    def __post_init__(self) -> None:
        check_choice("question", self.question, QUESTIONS)
        require_positive(self, "batch")

    def identify(self) -> dict[str, str]:
        facts = {"scorer": "classifier", "version": self.version, "asks": self.question}
        named = {"names": digest_file(self.names)} if self.names else {}
        return facts | {"weights": digest_weights(self.folder)} | named

    def check(self, rows: Sequence[Row]) -> None:
        """Raises ValueError where its labels have no names, or none is what a row asks for."""
        known = self.list_labels().values()
        if all(re.fullmatch(r"LABEL_\d+", label) for label in known):
            raise ValueError(f"the labels of {self.folder} have no names; give them: {self.name},names=FILE")
        require_labels(self.name, self.question, list(known), rows)

    def list_labels(self) -> dict[int, str]:
        """The labels by the index of the output."""
        own: dict[int, str] = dict(read_config(self.folder).id2label or {})
        if not self.names:
            return own
        given = read_text(self.names).splitlines()
        if len(given) != len(own):
            raise ValueError(
                f"{self.names} has {write_count(len(given), 'line')}; {self.folder} has "
                f"{write_count(len(own), 'output')}"
            )
        return dict(enumerate(given))

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        model, processor = _load(self.folder)
        labels = self.list_labels() if self.names else model.config.id2label
        out: list[Score] = []
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            with torch.inference_mode():
                seen = model(**prepare_images(processor, images[start : start + self.batch]))
            logits = seen.logits.float().cpu()
            out += [
                score_labels(p, labels, row, self.question) for p, row in zip(logits.softmax(-1), part, strict=True)
            ]
        return out


def score_labels(probabilities: Tensor, labels: Mapping[int, str], row: Row, question: str) -> Score:
    """Gives the most likely labels by probabilities [labels]; the value is that of what the row asked for."""
    best = probabilities.topk(min(TOP, len(labels)))
    answer, sure = tuple(labels[int(i)] for i in best.indices), tuple(best.values.tolist())
    names = frozenset().union(*(split_label(n) for n in find_wanted_labels(row, question)))
    hit = [float(probabilities[i]) for i, label in labels.items() if not split_label(label).isdisjoint(names)]
    words = ", ".join(f"{label} {p:.2f}" for label, p in zip(answer, sure, strict=True))
    return Score(sum(hit), answer, words, sure)


def find_wanted_labels(row: Row, question: str) -> tuple[str, ...]:
    """The labels that count for a row and this question: the row's own, or the other thing that it names."""
    other = {"object": row.thing, "style": row.style}.get(question, "")
    return row.counts if question == row.asks else (other,) if other else ()


def require_labels(scorer: str, question: str, labels: Sequence[str], rows: Sequence[Row]) -> None:
    """Raises ValueError where a row asks for something that none of these labels names."""
    known = frozenset().union(*(split_label(label) for label in labels))
    for row in rows:
        names = [split_label(n) for n in find_wanted_labels(row, question)]
        if names and not known & frozenset().union(*names):
            asked = find_wanted_labels(row, question)[0]
            more = sum(1 for r in rows if find_wanted_labels(r, question) == find_wanted_labels(row, question))
            raise ValueError(
                f"scorer {scorer} has no label {asked!r}, which {write_count(more, 'row asks', 'rows ask')} "
                f"for{did_you_mean(asked, labels)}; "
                "leave the scorer out, or give one that knows it"
            )


@cache_by_device
def _load(folder: str) -> tuple[Any, Any]:
    model = open_network(AutoModelForImageClassification, folder)
    return model.to(pick_device()), open_part(AutoImageProcessor, folder)
