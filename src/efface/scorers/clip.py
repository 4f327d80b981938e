"""CLIP similarity of picture and prompt: the cosine of their embeddings.

torchmetrics' CLIPScore fails under transformers 5, and would hide which CLIP it uses. The CLIP is loaded from its own
folder and is never the text encoder that an erasure may have edited. Published CLIP scores are 100 times the cosine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from ..concept import require_positive
from ..suites.spec import Row
from ._networks import open_network, open_part, read_config
from .base import Better, Score, cache_by_device, digest_weights, pick_device, prepare_images


@final
@dataclass(frozen=True)
class Clip:
    """Cosine of a picture and its prompt in [-1, 1], by a CLIP that no erasure touches."""

    version: ClassVar[str] = "2"
    title: ClassVar[str] = "CLIP similarity to the prompt"
    unit: ClassVar[str] = "cosine"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    folder: str
    """Folder or hub id of the CLIP."""
    name: str = "clip"
    batch: int = 64

    def __post_init__(self) -> None:
        require_positive(self, "batch")

    @property
    def question(self) -> str:
        return "match"

    def identify(self) -> dict[str, str]:
        return {"scorer": "clip", "version": self.version, "asks": "match", "weights": digest_weights(self.folder)}

    def check(self, rows: Sequence[Row]) -> None:
        """Raises ValueError or OSError where there is no CLIP."""
        require_clip(self.name, self.folder)

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        model, tokenizer, processor = load_clip(self.folder)
        out: list[Score] = []
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            words = tokenize(model, tokenizer, [r.prompt for r in part])
            pixels = prepare_images(processor, images[start : start + self.batch])
            with torch.inference_mode():
                seen = model(**words, **pixels)
            cosine = F.cosine_similarity(seen.text_embeds.float(), seen.image_embeds.float()).cpu()
            out += [Score(float(c), (), f"cosine {c:.3f}") for c in cosine]
        return out


def require_clip(scorer: str, folder: str) -> None:
    """Raises ValueError where the folder or hub id holds something else."""
    kind = read_config(folder).model_type
    if kind != "clip":
        raise ValueError(f"scorer {scorer} needs a CLIP (model_type clip); {folder} holds a {kind}")


def tokenize(model: Any, tokenizer: Any, texts: Sequence[str]) -> Any:
    """The tokens of n texts, as CLIP's arguments; texts are cut to the length of its network.

    The network says how many tokens it reads, because a tokenizer without its config cuts nothing.
    """
    most = model.config.text_config.max_position_embeddings
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=most, return_tensors="pt")
    return tokens.to(model.device)


@cache_by_device
def load_clip(folder: str) -> tuple[Any, Any, Any]:
    """Loads the CLIP, its tokenizer, and its image processor."""
    model = open_network(CLIPModel, folder)
    return model.to(pick_device()), open_part(AutoTokenizer, folder), open_part(AutoImageProcessor, folder)
