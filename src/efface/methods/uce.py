"""UCE: Unified Concept Editing (Gandikota et al., WACV 2024, arXiv 2308.14761).

W = (lamb W0 + s_e sum v* c' + s_p sum W0 k k') (lamb I + s_e sum c c' + s_p sum k k')^-1 (eq. 7) for the keys and
values of every cross-attention, where v* = W0 c* and c* is the anchor's embedding. In the authors' code c is
`uce_erase_embeds`, v* `uce_guide_outputs`, s_e `erase_scale`, s_p `preserve_scale`, and k are the `preserve_concepts`;
for artists their anchor is "art". Defaults are those of the second release. The first release is `--tokens all --lamb
0.1 --preserve-scale 0.1 --keep-empty`: it edits all tokens from the concept's last one on, aligned with the anchor's,
and preserves whole prompts, including the empty one. In a template the anchor takes the target's place, and without an
anchor the place stays empty ("image of "), as `expand_prompts` of the second release does. For objects its templates
are `--templates "{}" "image of {}" "photo of {}" "portrait of {}" "picture of {}" "painting of {}"`.

This differs from the code in three points. The first release turns templated prompts into the bare anchor, while
`--tokens all` here keeps the template around an anchor. All targets have the same anchor. Ours is computed in fp64. The
text encoders and SDXL's pooled text are not edited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from ..concept import Erasure, require_positive
from ..functional.closed_form import solve_shared
from ..models.base import Model
from .closed_form import ClosedForm, Tokens


@final
@dataclass(frozen=True, kw_only=True)
class UCE(ClosedForm):
    """Maps the target's keys and values to the anchor's by least squares, in seconds, and preserves concepts to
    keep."""

    tokens: Tokens = "last-subject"
    """Which rows of a prompt are edited: the concept's last token, or all from there on."""
    erase_scale: float = 1.0
    """Weight of the targets' rows; large weights damage pictures."""
    preserve_scale: float = 1.0
    """Weight of the preserved concepts' embeddings."""
    keep_empty: bool = False
    """Preserve every token of the empty prompt too, which guidance subtracts."""

    def __post_init__(self) -> None:
        require_positive(self, "lamb", "erase_scale", "preserve_scale")

    def solve(
        self, model: Model, erasure: Erasure, words: Sequence[str], weights: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Makes one linear solve."""
        reader = self.build_reader(model, self.tokens, weights)
        inputs, outputs = reader.read_pairs(erasure.targets, erasure.anchor)
        kept = reader.read_kept([*erasure.keep, *words])
        if self.keep_empty:
            kept = torch.cat([kept, reader.read_whole([""])])
        matrix = solve_shared(inputs, outputs, kept, self.lamb, self.erase_scale, self.preserve_scale)
        return matrix, {"preserved": [*erasure.keep, *words]}
