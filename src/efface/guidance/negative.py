"""Negative prompt: guidance pushes a picture away from the concept instead of from the empty prompt.

eps = eps_n + w (eps_c - eps_n), where n is the concept; at strength s, eps_n is eps_0 + s (eps_n - eps_0). It acts only
through the guidance, so at w = 1 it does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from ..models.cond import Cond
from ..models.denoiser import Denoiser, Scale, is_plain
from ..models.guider import GuidedSampling, Guider


@final
@dataclass(frozen=True, kw_only=True)
class Negative(Guider):
    """Replaces the empty prompt by the concept in classifier-free guidance."""

    prompt: str
    """The negative prompt."""

    def check(self, model: Denoiser) -> None:
        model.encode_with_grad([self.prompt])  # raises for a model of classes where this names no class, or several

    def begin(self, model: Denoiser, cond: Cond, uncond: Cond, guidance: Scale) -> GuidedSampling:
        negative = model.encode([self.prompt]).expand(len(cond))
        return _NegativeSampling(model, cond, Away(uncond, negative, self.strength), guidance)


@final
@dataclass(frozen=True)
class Away:
    """The prediction from which guidance pushes away: at strength s, eps_0 + s (eps_n - eps_0)."""

    uncond: Cond
    negative: Cond
    strength: float

    def list_conds(self) -> Sequence[Cond]:
        return [self.negative] if self.strength == 1 else [self.uncond, self.negative]

    def combine(self, predictions: Mapping[Cond, Tensor]) -> Tensor:
        eps_n = predictions[self.negative]
        return (
            eps_n
            if self.strength == 1
            else predictions[self.uncond] + self.strength * (eps_n - predictions[self.uncond])
        )


@final
@dataclass(frozen=True)
class _NegativeSampling(GuidedSampling):
    model: Denoiser
    cond: Cond
    away: Away
    guidance: Scale

    def list_conds(self, i: int) -> Sequence[Cond]:
        return [self.cond] if is_plain(self.guidance) else [*self.away.list_conds(), self.cond]

    def combine(self, i: int, x_t: Tensor, t: Tensor, predictions: Mapping[Cond, Tensor]) -> Tensor:
        if is_plain(self.guidance):
            return predictions[self.cond]
        return self.model.guide(predictions[self.cond], self.away.combine(predictions), self.guidance)
