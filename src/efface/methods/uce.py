"""UCE: Unified Concept Editing (Gandikota et al., WACV 2024, arXiv 2308.14761).

W = (lamb W0 + s_e sum v* c' + s_p sum W0 k k') (lamb I + s_e sum c c' + s_p sum k k')^-1 (eq. 7) for the keys and
values of every cross-attention, with v* = W0 c* and c* the anchor's embedding. In the authors' code: c is
`uce_erase_embeds`, v* `uce_guide_outputs`, s_e `erase_scale`, s_p `preserve_scale`, k the `preserve_concepts`; for
artists their anchor is "art". Defaults are the second release's. The first is `--tokens all --lamb 0.1 --preserve-scale
0.1 --keep-empty`: all tokens from the concept's last on, aligned with the anchor's, and whole prompts kept, the empty
one among them. Under a template the anchor takes the target's place, and without an anchor nothing does ("image of "),
as their `expand_prompts` of the second release has it: `--templates "{}" "image of {}" "photo of {}" "portrait of {}"
"picture of {}" "painting of {}"` for objects. Differs: the first release turns templated prompts into the bare anchor,
with `--tokens all` ours keeps the template around an anchor; one anchor for all targets; fp64. Text encoders and SDXL's
pooled text are not edited.
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
    """Maps the target's keys and values to the anchor's by least squares, in seconds; kept concepts pull back."""

    tokens: Tokens = "last-subject"
    """Which rows of a prompt are edited: the concept's last token, or all from there on."""
    erase_scale: float = 1.0
    """Weight of the targets' rows; large ones break pictures."""
    preserve_scale: float = 1.0
    """Weight of the preserved concepts' embeddings."""
    keep_empty: bool = False
    """Preserve every token of the empty prompt too, which guidance subtracts."""

    def __post_init__(self) -> None:
        require_positive(self, "lamb", "erase_scale", "preserve_scale")

    def solve(
        self, model: Model, erasure: Erasure, words: Sequence[str], weights: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Any]]:
        """One linear solve."""
        reader = self.reader(model, self.tokens, weights)
        inputs, outputs = reader.pairs(erasure.targets, erasure.anchor)
        kept = reader.kept([*erasure.keep, *words])
        if self.keep_empty:
            kept = torch.cat([kept, reader.whole([""])])
        matrix = solve_shared(inputs, outputs, kept, self.lamb, self.erase_scale, self.preserve_scale)
        return matrix, {"preserved": [*erasure.keep, *words]}
