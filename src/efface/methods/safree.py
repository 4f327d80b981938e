"""SAFREE: training-free and adaptive guard (Yoon et al., ICLR 2025, arXiv 2410.12761); no weight changes.

Tokens that bring a prompt near the targets are projected away from them, in as many sampling steps as the prompt looks
suspicious; `efface.guidance.safree` has the formulas and says what differs from the code. Defaults are those of the
code for nudity; for artists use `--sharpness 3.5 --midpoint 5.5`. Each target is one phrase of the unwanted span. The
code's run for nudity has 17 phrases and uses a negative prompt as well: `--negative`.

Only the embeddings of the prompt's words are filtered, not those of the end token and the padding. The method hardly
erases where these carry the concept, as in glyphs, where the words for a cat followed by the end tokens of a rose draw
a rose.
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
    """Projects the tokens that carry the target away from it, and leaves the other tokens as they are."""

    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl")
    unserved: ClassVar[Mapping[str, str]] = {
        "pixart": "it filters by CLIP's pooled embedding of a prompt, and T5 pools none",
        "flow": "it filters the tokens of CLIP, and T5 or a language model reads the prompt beside or instead of it",
    }
    alpha: float = 0.01
    """How much farther from the target the prompt must be without a token for this token to be filtered."""
    self_validation: bool = True
    """Let the prompt's similarity to the target decide how many steps are filtered, instead of all."""
    up_t: int = 10
    """Largest number of filtered steps with self-validation."""
    sharpness: float = 2.5
    """Steepness of the sigmoid by which self-validation decides."""
    midpoint: float = 5.333
    """Ten times the change of the embedding at which half of `up_t` steps are filtered."""
    negative: bool = False
    """Also use the targets as the negative prompt."""

    def build_guider(self, erasure: Erasure) -> Guider:
        return safree.SAFREE(
            concepts=erasure.targets,
            alpha=self.alpha,
            self_validation=self.self_validation,
            up_t=self.up_t,
            sharpness=self.sharpness,
            midpoint=self.midpoint,
            negative=self.negative,
        )
