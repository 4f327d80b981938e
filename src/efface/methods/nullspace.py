"""Null-space edit: many concepts at once, with what is preserved held exactly.

W = W0 + D P minimises sum |W c - v*|^2 + lamb |D P|^2 for the keys and values of every cross-attention, v* = W0 c*, c*
the anchor's embedding, P the projector onto the directions that no preserved row k uses, so that W k = W0 k whatever
the targets. The constraint is AlphaEdit's (Fang et al., ICLR 2025, arXiv 2410.02355), made for language models; its use
on UCE's rows is our own, as are all defaults here, and follows no published code. Preserved are every token of the
empty prompt (which guidance subtracts, and whose start token every prompt shares), the last token of each kept concept
and of as many words of the vocabulary as leave `free` of the directions. Only these rows are promised: the end tokens
of a kept prompt move as far as they lean on the free directions. The Edit's notes tell how many directions are free,
and `reach`, the share of each target's rows in them, by norm: the smaller, the less can be done.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor

from ..concept import Erasure
from ..functional import closed_form
from ..functional.closed_form import Reader, Tokens, answers, null_projector, ordinary, positive, text_projections
from ..game import Edit, Method, provenance, versions
from ..models.base import Model

REACHED = 1e-5
"""A target with a smaller share in the free directions cannot be told from rounding."""


@final
@dataclass(frozen=True, kw_only=True)
class NullSpace(Method):
    """Maps many targets to the anchor at once along directions that nothing preserved uses, in seconds."""

    uses_anchor: ClassVar[bool] = True
    uses_keep: ClassVar[bool] = True
    tokens: Tokens = "all"
    """Which rows of a target's prompt are edited: the concept's last token, or all from there on."""
    lamb: float = 0.5
    """Weight of staying near the base weights."""
    threshold: float = 1e-6
    """A direction is free where the preserved rows reach at most this share of their largest singular value."""
    preserve_vocabulary: int = 1000
    """Words of the model's vocabulary, common ones first, that are preserved beside the kept concepts, at most."""
    free: float = 0.5
    """Share of the embedding's directions that the vocabulary leaves free."""
    exclude: tuple[str, ...] = ()
    """Words that count as the target and are never taken from the vocabulary."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts around a concept, all of which are edited and preserved."""

    def __post_init__(self) -> None:
        positive(self, "lamb", "free")
        if self.free > 1:
            raise ValueError(f"free is a share of the directions, at most 1, got {self.free}")
        if not 1e-6 <= self.threshold < 1:
            raise ValueError(f"the threshold is in [1e-6, 1), got {self.threshold}; less is lost in rounding")

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
        edited = Reader(lambda texts: model.encode(texts).tensors["tokens"], tokenizer, self.templates, self.tokens)
        last = dataclasses.replace(edited, tokens="last-subject")
        always = torch.cat([last.whole([""]), last.kept(erasure.keep)])
        width = always.shape[1]
        room = max(0, int((1 - self.free) * width) - len(always)) // len(self.templates)
        named = (*erasure.targets, *erasure.keep, *self.exclude)
        words = ordinary(model.vocabulary(self.preserve_vocabulary), named)[:room]
        projector = null_projector(torch.cat([always, last.kept(words)]), self.threshold)
        reach = {t: _share(edited.pairs([t], erasure.anchor)[0], projector) for t in erasure.targets}
        if lost := [target for target, share in reach.items() if share <= REACHED]:
            raise ValueError(
                f"{len(erasure.keep)} kept concepts in {len(self.templates)} templates leave no direction of {width} "
                f"to erase {lost[0]!r} along; keep fewer, or raise the threshold, at the price of moving them a little"
            )
        inputs, outputs = edited.pairs(erasure.targets, erasure.anchor)
        eye = torch.eye(width, device=inputs.device)
        matrix = closed_form.null_space(eye, inputs, outputs, projector, self.lamb)
        record = provenance(model, erasure, type(self).__name__, dataclasses.asdict(self))
        directions = round(projector.trace().item())
        notes = {"preserved": [*erasure.keep, *words], "free_directions": directions, "reach": reach}
        return Edit(answers(weights, matrix, progress), {**record, "versions": versions(), "notes": notes})


def _share(rows: Tensor, projector: Tensor) -> float:
    """The part of some rows [n, d] that lies in the free directions, by norm."""
    return ((rows @ projector).norm() / rows.norm()).item()
