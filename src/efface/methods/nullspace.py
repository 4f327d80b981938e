"""Null-space edit: many concepts at once, while what is preserved stays exactly as it was.

W = W0 + D P minimises sum |W c - v*|^2 + lamb |D P|^2 for the keys and values of every cross-attention, where v* = W0
c*, c* is the anchor's embedding, and P projects onto the directions that no preserved row k uses, so that W k = W0 k
whatever the targets are. The constraint is that of AlphaEdit (Fang et al., ICLR 2025, arXiv 2410.02355), which was made
for language models. Its use on UCE's rows and all defaults are our own and follow no published code.

Preserved are every token of the empty prompt (which guidance subtracts, and whose start token is part of every prompt),
the last token of each kept concept, and the last tokens of vocabulary words, as many as leave the share `free` of the
directions. Only these rows are guaranteed: the end tokens of a kept prompt move as far as they have a part in the free
directions. The Edit's notes say how many directions are free, and give as `reach` the share of the norm of each
target's rows that lies in them: the smaller it is, the less the edit can do.
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
        """Makes one linear solve in the directions that the preserved rows leave free."""
        edited, last = (self.build_reader(model, tokens, weights) for tokens in (self.tokens, LAST))
        always = torch.cat([last.read_whole([""]), last.read_kept(erasure.keep)])
        width = always.shape[1]
        room = max(0, int((1 - self.free) * width) - len(always)) // last.rows_a_concept
        projector = build_null_projector(torch.cat([always, last.read_kept(words[:room])]), self.threshold)
        reach = {t: _measure_share(edited.read_pairs([t], erasure.anchor)[0], projector) for t in erasure.targets}
        if lost := [target for target, share in reach.items() if share <= REACHED]:
            raise ValueError(
                f"{len(erasure.keep)} kept concepts in {len(self.templates)} templates leave no direction of {width} "
                f"to erase {lost[0]!r} along; keep fewer, or raise the threshold, at the price of moving them a little"
            )
        inputs, outputs = edited.read_pairs(erasure.targets, erasure.anchor)
        matrix = solve_null_space(torch.eye(width, device=inputs.device), inputs, outputs, projector, self.lamb)
        directions = round(projector.trace().item())
        return matrix, {
            "preserved": [*erasure.keep, *words[:room]],
            "free_directions": directions,
            "reach": reach,
        }


def _measure_share(rows: Tensor, projector: Tensor) -> float:
    """The share of the norm of rows [n, d] that lies in the free directions."""
    return ((rows @ projector).norm() / rows.norm()).item()
