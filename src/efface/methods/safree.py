"""SAFREE: training-free and adaptive guard (Yoon et al., ICLR 2025, arXiv 2410.12761); no weight changes.

Tokens that bring a prompt near the targets are projected away from them, for as many steps as the prompt looks
suspicious: see `efface.guidance.safree` for the formulas and for what differs. Defaults are the code's for nudity; for
artists `--sharpness 3.5 --midpoint 5.5`. Each target is one phrase of the unwanted span. The code's nudity run uses 17
phrases and, with them, a negative prompt: `--negative`.

Only the words' own embeddings are filtered, not those of the end and the padding. Where these carry the concept, as in
glyphs (a cat's words before a rose's end draw a rose), it hardly erases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from ..concept import Erasure
from ..guidance import safree
from ..models.guider import Guider
from .guided import Guided


@final
@dataclass(frozen=True, kw_only=True)
class SAFREE(Guided):
    """Projects the words that carry the target away from it, and leaves the others."""

    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl")
    unserved: ClassVar[Mapping[str, str]] = {
        "pixart": "it filters by CLIP's pooled embedding of a prompt, and T5 pools none",
        "flow": "it filters the tokens of CLIP, and T5 or a language model reads the prompt beside or instead of it",
    }
    alpha: float = 0.01
    """How much farther from the target a prompt must be without a token for the token to carry it."""
    self_validation: bool = True
    """Filter for as many steps as the prompt looks suspicious, not all."""
    up_t: int = 10
    """Most steps filtered, where self-validation decides."""
    sharpness: float = 2.5
    """How fast suspicion grows."""
    midpoint: float = 5.333
    """Ten times the change of the embedding at which half of `up_t` steps are filtered."""
    negative: bool = False
    """Use the targets as negative prompt as well."""

    def guide(self, erasure: Erasure) -> Guider:
        return safree.SAFREE(
            concepts=erasure.targets,
            alpha=self.alpha,
            self_validation=self.self_validation,
            up_t=self.up_t,
            sharpness=self.sharpness,
            midpoint=self.midpoint,
            negative=self.negative,
        )
