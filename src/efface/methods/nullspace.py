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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from ..concept import Erasure, require_positive
from ..functional.closed_form import build_null_projector, solve_null_space
from ..models.base import Model
from .closed_form import ClosedForm, Tokens

LAST: Tokens = "last-subject"
REACHED = 1e-5
"""A target with a smaller share in the free directions cannot be distinguished from rounding errors."""


@final
@dataclass(frozen=True, kw_only=True)
class NullSpace(ClosedForm):
    """Maps many targets to the anchor at once, along directions that no preserved concept uses, in seconds."""

    tokens: Tokens = "all"
    """Which token embeddings of a target's prompt are edited: the concept's last token, or all from there on."""
    threshold: float = 1e-6
    """A direction is free if the preserved embeddings' singular value there is at most this share of the largest
    one."""
    preserve_vocabulary: int = 1000
    """Largest number of words of the model's vocabulary, the most common first, that are preserved beside the
    concepts to keep."""
    free: float = 0.5
    """Share of the embedding's directions that must stay free when vocabulary words are added."""

    def __post_init__(self) -> None:
        require_positive(self, "lamb", "free")
        if self.free > 1:
            raise ValueError(f"free is a share of the directions, at most 1, got {self.free}")
        if not 1e-6 <= self.threshold < 1:
            raise ValueError(f"the threshold is in [1e-6, 1), got {self.threshold}; less is lost in rounding")

    def solve(
        self, model: Model, erasure: Erasure, words: Sequence[str], weights: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Any]]:
        """One linear solve, along what as many words as there is room for leave free."""
        edited, last = (self.reader(model, tokens, weights) for tokens in (self.tokens, LAST))
        always = torch.cat([last.whole([""]), last.kept(erasure.keep)])
        width = always.shape[1]
        room = max(0, int((1 - self.free) * width) - len(always)) // last.rows_a_concept
        projector = build_null_projector(torch.cat([always, last.kept(words[:room])]), self.threshold)
        reach = {t: _share(edited.pairs([t], erasure.anchor)[0], projector) for t in erasure.targets}
        if lost := [target for target, share in reach.items() if share <= REACHED]:
            raise ValueError(
                f"{len(erasure.keep)} kept concepts in {len(self.templates)} templates leave no direction of {width} "
                f"to erase {lost[0]!r} along; keep fewer, or raise the threshold, at the price of moving them a little"
            )
        inputs, outputs = edited.pairs(erasure.targets, erasure.anchor)
        matrix = solve_null_space(torch.eye(width, device=inputs.device), inputs, outputs, projector, self.lamb)
        directions = round(projector.trace().item())
        return matrix, {
            "preserved": [*erasure.keep, *words[:room]],
            "free_directions": directions,
            "reach": reach,
        }


def _share(rows: Tensor, projector: Tensor) -> float:
    """The part of some rows [n, d] that lies in the free directions, by norm."""
    return ((rows @ projector).norm() / rows.norm()).item()
