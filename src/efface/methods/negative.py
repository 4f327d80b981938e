"""Negative prompt: the target takes the place of the empty prompt in guidance; no training, no weight changes.

eps = eps_n + w (eps_c - eps_n), where n is the list of targets, joined by commas. This is what users of diffusers write
as `negative_prompt`, and the baseline that every inference-time method should beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..concept import Erasure
from ..guidance import negative
from ..models.guider import Guider
from .guided import Guided


@final
@dataclass(frozen=True, kw_only=True)
class Negative(Guided):
    """Guides every picture away from the target instead of away from the empty prompt."""

    needs_uncond: ClassVar[bool] = True
    template: str = "{}"
    """Prompt template of the targets."""

    def build_guider(self, erasure: Erasure) -> Guider:
        return negative.Negative(prompt=self.template.format(", ".join(erasure.targets)))
