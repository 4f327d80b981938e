"""CLIP similarity of picture and prompt: the cosine of their embeddings, by a CLIP of its own.

torchmetrics' CLIPScore fails under transformers 5, and it would hide which CLIP was asked. This one is loaded from its
own folder: never the text tower that an erasure may have edited.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from ..suites import Row
from .base import Score, enlarged, weights_digest


@dataclass(frozen=True)
class Clip:
    """Cosine of a picture and its prompt in [-1, 1], by a CLIP that no erasure touches."""

    version: ClassVar[str] = "2"
    folder: str
    """Folder or hub id of the CLIP."""
    name: str = "clip"
    batch: int = 64

    @property
    def asks(self) -> str:
        return "match"

    def identity(self) -> dict[str, str]:
        return {"scorer": "clip", "version": self.version, "weights": weights_digest(self.folder)}

    def score(self, images: Tensor, rows: Sequence[Row]) -> list[Score]:
        model, tokenizer, processor = _load(self.folder)
        out: list[Score] = []
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            words = tokenizer([r.prompt for r in part], padding=True, truncation=True, return_tensors="pt")
            shown = enlarged(images[start : start + self.batch], processor.size.get("shortest_edge", 0))
            pixels = processor(images=list(shown), return_tensors="pt")
            with torch.inference_mode():
                seen = model(**words, **pixels)
            cosine = F.cosine_similarity(seen.text_embeds.float(), seen.image_embeds.float())
            out += [Score(float(c), (), f"cosine {c:.3f}") for c in cosine]
        return out


@functools.cache
def _load(folder: str):
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
