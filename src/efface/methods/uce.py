"""UCE: Unified Concept Editing (Gandikota et al., WACV 2024, arXiv 2308.14761).

W = (lamb W0 + s_e sum v* c' + s_p sum W0 k k') (lamb I + s_e sum c c' + s_p sum k k')^-1 (eq. 7) for the keys and
values of every cross-attention, with v* = W0 c* and c* the anchor's embedding. In the authors' code: c is
`uce_erase_embeds`, v* `uce_guide_outputs`, s_e `erase_scale`, s_p `preserve_scale`, k the `preserve_concepts`; for
artists their anchor is "art". Defaults are the second release's. The first is `--tokens all --lamb 0.1 --preserve-scale
0.1 --keep-empty`: all tokens from the concept's last on, aligned with the anchor's, and whole prompts kept, the empty
one among them. Differs: under a template the anchor takes the target's place, where their `expand_prompts` uses it bare
(and preserves the target's own phrases); fp64. Text encoders and SDXL's pooled text are not edited.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import torch

from ..concept import Erasure
from ..functional.closed_form import Reader, Tokens, answers, least_squares, ordinary, positive, text_projections
from ..game import Edit, Method, provenance, versions
from ..models.base import Model


@final
@dataclass(frozen=True, kw_only=True)
class UCE(Method):
    """Maps the target's keys and values to the anchor's by least squares, in seconds; kept concepts pull back."""

    uses_anchor: ClassVar[bool] = True
    uses_keep: ClassVar[bool] = True
    tokens: Tokens = "last-subject"
    """Which rows of a prompt are edited: the concept's last token, or all from there on."""
    lamb: float = 0.5
    """Weight of staying near the base weights."""
    erase_scale: float = 1.0
    """Weight of the targets' rows; large ones break pictures."""
    preserve_scale: float = 1.0
    """Weight of the preserved rows."""
    preserve_vocabulary: int = 0
    """Words of the model's vocabulary, common ones first, that are preserved beside the kept concepts."""
    exclude: tuple[str, ...] = ()
    """Words that count as the target and are never taken from the vocabulary."""
    keep_empty: bool = False
    """Preserve every token of the empty prompt too, which guidance subtracts."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts around a concept, all of which are edited and preserved."""

    def __post_init__(self) -> None:
        positive(self, "lamb", "erase_scale", "preserve_scale")

    def fit(
        self,
        model: Model,
        erasure: Erasure,
        *,
        progress: Callable[..., None] | None = None,
        checkpoint: str | Path | None = None,
    ) -> Edit:
        """One linear solve for all layers; there is nothing to resume, so the checkpoint stays unused."""
        self.check(erasure, model)
        weights = text_projections(model.weights)
        tokenizer = getattr(model, "tokenizer", None)
        reader = Reader(lambda texts: model.encode(texts).tensors["tokens"], tokenizer, self.templates, self.tokens)
        inputs, outputs = reader.pairs(erasure.targets, erasure.anchor)
        named = (*erasure.targets, *erasure.keep, *self.exclude)
        words = ordinary(model.vocabulary(self.preserve_vocabulary), named)
        kept = reader.kept([*erasure.keep, *words])
        if self.keep_empty:
            kept = torch.cat([kept, reader.whole([""])])
        eye = torch.eye(inputs.shape[1], device=inputs.device)
        matrix = least_squares(eye, inputs, outputs, kept, self.lamb, self.erase_scale, self.preserve_scale)
        record = provenance(model, erasure, type(self).__name__, dataclasses.asdict(self))
        notes = {"preserved": [*erasure.keep, *words]}
        return Edit(answers(weights, matrix, progress), {**record, "versions": versions(), "notes": notes})
