"""Zero-shot choice by CLIP (Radford et al. 2021): the label, out of a list, that fits the picture best.

    p(label) = softmax over labels of (logit scale * cosine(picture, "a photo of a LABEL"))

It is for labels that no classifier knows. It always chooses one of the labels, so that its answer is only as good as
the list. The value is the probability of what the row asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from ..concept import check_choice, require_positive
from ..suites.spec import Row
from .base import Better, Score, cache_by_device, digest_weights, prepare_images
from .classifier import QUESTIONS, require_labels, score_labels
from .clip import load_clip, require_clip, tokenize


@final
@dataclass(frozen=True)
class Choice:
    """The labels that a picture fits best, by a CLIP that no erasure touches."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "probability of what was asked for"
    unit: ClassVar[str] = "probability"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    folder: str
    """Folder or hub id of the CLIP."""
    labels: tuple[str, ...]
    """What to choose from; the suite's concepts by default."""
    question: str = "object"
    """What the labels name: "object" or "style"."""
    template: str = "a photo of a {}"
    """How a label is said, with {} for it."""
    name: str = "choice"
    batch: int = 64

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            raise ValueError(f"{self.name} chooses among at least 2 labels; it was given {len(self.labels)}")
        if self.template.count("{}") != 1:
            raise ValueError(f"a template holds the label as {{}}, once; got {self.template!r}")
        check_choice("question", self.question, QUESTIONS)
        require_positive(self, "batch")

    def identify(self) -> dict[str, str]:
        facts = {"scorer": "choice", "version": self.version, "asks": self.question}
        said_how = {"labels": ", ".join(self.labels), "template": self.template}
        return facts | said_how | {"weights": digest_weights(self.folder)}

    def check(self, rows: Sequence[Row]) -> None:
        """Raises ValueError or OSError where there is no CLIP, or no label for what a row asks it for."""
        require_clip(self.name, self.folder)
        require_labels(self.name, self.question, self.labels, rows)

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        model, _, processor = load_clip(self.folder)
        words, labels = _embed_labels(self.folder, self.template, self.labels), dict(enumerate(self.labels))
        out: list[Score] = []
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            with torch.inference_mode():
                seen = model.get_image_features(**prepare_images(processor, images[start : start + self.batch]))
                logits = F.normalize(seen.pooler_output.float()) @ words.T * model.logit_scale.exp()
            out += [
                score_labels(p, labels, row, self.question)
                for p, row in zip(logits.softmax(-1).cpu(), part, strict=True)
            ]
        return out


@cache_by_device
def _embed_labels(folder: str, template: str, labels: tuple[str, ...]) -> Tensor:
    """The labels' embeddings [labels, d], of unit length."""
    model, tokenizer, _ = load_clip(folder)
    tokens = tokenize(model, tokenizer, [template.replace("{}", label) for label in labels])
    with torch.inference_mode():
        return F.normalize(model.get_text_features(**tokens).pooler_output.float())
