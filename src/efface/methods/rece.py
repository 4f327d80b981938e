"""RECE: Reliable and Efficient Concept Erasure (Gong et al., ECCV 2024, arXiv 2407.12383).

A UCE edit, then in each epoch: c' = (reg I + sum W'W)^-1 (sum W'W0) c, the embedding that brings the target back (the
sums run over the keys and values of all cross-attentions), and a UCE edit of the current W that maps c' to the anchor.
Every W is W0 M, so M [d, d] alone is iterated. In the authors' code: c' is `close_form_emb_regzero`, reg
`regular_scale`, the edit `edit_model_adversarial`; c is all tokens of the prompt, the empty prompt is preserved.
Defaults are those for nudity; artists: `--reg 1e-3 --epochs 1`, anchor "art"; objects: `--reg 1e-3 --epochs 5`.
Differs: the authors keep the epoch with the lowest nudity rate on a development set, ours is the last; their UCE is a
downloaded checkpoint, ours the first release's formula with the settings below; fp64.
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
from ..functional.closed_form import Reader, adversarial, answers, least_squares, ordinary, positive, text_projections
from ..game import Edit, Method, provenance, versions
from ..models.base import Model


@final
@dataclass(frozen=True, kw_only=True)
class RECE(Method):
    """UCE, then epochs of finding the embedding that brings the target back and editing it away too."""

    uses_anchor: ClassVar[bool] = True
    uses_keep: ClassVar[bool] = True
    epochs: int = 3
    """Rounds of attack and edit after the UCE edit; 0 is UCE's first release."""
    reg: float = 0.1
    """Pull of the attack's embedding to zero; small ones attack, and then erase, harder."""
    lamb: float = 0.1
    """Weight of staying near the weights before each edit."""
    erase_scale: float = 1.0
    """Weight of the erased rows."""
    preserve_scale: float = 0.1
    """Weight of the preserved rows."""
    preserve_vocabulary: int = 0
    """Words of the model's vocabulary, common ones first, that are preserved beside the kept concepts."""
    exclude: tuple[str, ...] = ()
    """Words that count as the target and are never taken from the vocabulary."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts around a concept, all of which are edited and preserved."""

    def __post_init__(self) -> None:
        positive(self, "reg", "lamb", "erase_scale", "preserve_scale")
        if self.epochs < 0:
            raise ValueError(f"epochs must be at least 0, got {self.epochs}")

    def fit(
        self,
        model: Model,
        erasure: Erasure,
        *,
        progress: Callable[..., None] | None = None,
        checkpoint: str | Path | None = None,
    ) -> Edit:
        """Two linear solves an epoch for all layers; there is nothing to resume, so the checkpoint stays unused."""
        self.check(erasure, model)
        weights = text_projections(model.weights)
        tokenizer = getattr(model, "tokenizer", None)
        reader = Reader(lambda texts: model.encode(texts).tensors["tokens"], tokenizer, self.templates, "all")
        named = (*erasure.targets, *erasure.keep, *self.exclude)
        words = ordinary(model.vocabulary(self.preserve_vocabulary), named)
        kept = torch.cat([reader.kept([*erasure.keep, *words]), reader.whole([""])])
        gram = torch.stack([weight.double().T @ weight.double() for weight in weights.values()]).sum(0)
        matrix = self._edit(*reader.pairs(erasure.targets, erasure.anchor), kept)
        targets, goals = self._whole(reader, erasure)
        for _ in range(self.epochs):
            returned = adversarial(targets, gram, matrix, self.reg)
            matrix = matrix @ self._edit(returned, goals, kept)
        record = provenance(model, erasure, type(self).__name__, dataclasses.asdict(self))
        notes = {"preserved": [*erasure.keep, *words]}
        return Edit(answers(weights, matrix, progress), {**record, "versions": versions(), "notes": notes})

    def _edit(self, inputs: Tensor, outputs: Tensor, kept: Tensor) -> Tensor:
        """The matrix [d, d] that UCE puts after the weights now in place."""
        eye = torch.eye(inputs.shape[1], device=inputs.device)
        return least_squares(eye, inputs, outputs, kept, self.lamb, self.erase_scale, self.preserve_scale)

    def _whole(self, reader: Reader, erasure: Erasure) -> tuple[Tensor, Tensor]:
        """Every token of the targets' prompts [n L, d], and of the anchor's in the same places."""
        n = len(erasure.targets)
        goals = reader.kept([erasure.anchor]) if erasure.anchor else reader.whole([""] * len(self.templates))
        # Prompts come by template, then by target.
        by_template = goals.unflatten(0, (len(self.templates), 1, -1)).expand(-1, n, -1, -1)
        return reader.kept(erasure.targets), by_template.flatten(0, 2)
