"""Which things are near which: ranked by the cosine of their names' embeddings in a CLIP that no erasure touches.

A world keeps the ranking as data (`nearest` in world.json), so that suites need no network to know a target's
neighbours.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ..scorers.clip import load_clip


def ranking(folder: str, names: Sequence[str], template: str = "a picture of a {}") -> dict[str, tuple[str, ...]]:
    """For each name all the others, nearest first; names equally near stand in the order given.

    Args:
        folder: folder or hub id of the CLIP.
        template: how a name is said, with {} for it.
    """
    if template.count("{}") != 1:
        raise ValueError(f"a template holds the name as {{}}, once; got {template!r}")
    model, tokenizer, _ = load_clip(folder)
    words = tokenizer([template.format(n) for n in names], padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        said: Any = model.get_text_features(**words.to(model.device))
    texts = F.normalize(said.pooler_output.double())
    ranked: list[list[int]] = (texts @ texts.T).cpu().argsort(dim=1, descending=True, stable=True).tolist()
    out: dict[str, tuple[str, ...]] = {}
    for i, row in enumerate(ranked):
        out[names[i]] = tuple(names[j] for j in row if j != i)
    return out
