"""Safe Latent Diffusion (Schramowski et al., CVPR 2023, arXiv 2211.05105): pushes away from a concept that is near.

    mu    = min(1, scale |eps_c - eps_s|) where eps_c - eps_s < threshold, else 0         (eq. 6, elementwise)
    gamma = mu (eps_s - eps_0) + momentum_scale nu                                        (eqs. 4, 7)
    nu   <- momentum_beta nu + (1 - momentum_beta) gamma                                  (eq. 8, from the first step)
    eps   = eps_0 + w (eps_c - eps_0 - gamma) from step `warm_up` on, plain guidance before  (eq. 3)

The comparison with the threshold is signed, without an absolute value, as in the paper and the authors' code. A
strength other than 1 multiplies gamma in the last line alone. Unlike the code, it acts at w = 1 too, as the formula
does.

Scale and threshold are in units of noise. Where a network predicts something else, differences of predictions are
converted to noise and back: at one (x_t, t) the spaces are affine maps of each other, so that a difference is
multiplied by the slope alone (v: sqrt(ab); x0: -sqrt(ab / (1 - ab))). Where the slope is 0, which is at pure noise,
predictions of noise can't differ and nothing is pushed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..functional.schedules import shape_like, space_weight
from ..models.cond import Cond
from ..models.denoiser import Denoiser, Scale
from ..models.guider import GuidedSampling, Guider


@final
@dataclass(frozen=True, kw_only=True)
class SLD(Guider):
    """Subtracts a safety guidance from classifier-free guidance."""

    prompt: str
    """The concept to push away from."""
    warm_up: int
    """The number of steps before it acts; the momentum builds up meanwhile."""
    scale: float
    """The slope of the push where the prompt's prediction is near the concept's."""
    threshold: float
    """The difference of predictions, in units of noise, from which on nothing is pushed."""
    momentum_scale: float
    """The weight of the momentum in the push."""
    momentum_beta: float
    """The share of the momentum that stays from step to step."""

    def check(self, model: Denoiser) -> None:
        model.encode_with_grad([self.prompt])  # raises for a model of classes where this names no class, or several

    def begin(self, model: Denoiser, cond: Cond, uncond: Cond, guidance: Scale) -> GuidedSampling:
        return _SLDSampling(self, model, cond, uncond, guidance)


@final
class _SLDSampling(GuidedSampling):
    def __init__(self, guide: SLD, model: Denoiser, cond: Cond, uncond: Cond, guidance: Scale) -> None:
        self.guide, self.model, self.cond, self.uncond, self.guidance = guide, model, cond, uncond, guidance
        self.safety = model.encode([guide.prompt]).expand(len(cond))
        self.momentum: Tensor | None = None

    def list_conds(self, i: int) -> Sequence[Cond]:
        return [self.uncond, self.cond, self.safety]

    def combine(self, i: int, x_t: Tensor, t: Tensor, predictions: Mapping[Cond, Tensor]) -> Tensor:
        guide, slope = self.guide, self._compute_slope(x_t, t)
        eps_0, eps_c, eps_s = predictions[self.uncond], predictions[self.cond], predictions[self.safety]
        apart = slope * (eps_c - eps_s)
        mu = torch.where(apart < guide.threshold, (guide.scale * apart.abs()).clamp(max=1), 0)
        nu = torch.zeros_like(x_t) if self.momentum is None else self.momentum
        gamma = mu * (slope * (eps_s - eps_0)) + guide.momentum_scale * nu
        self.momentum = guide.momentum_beta * nu + (1 - guide.momentum_beta) * gamma
        if i < guide.warm_up:
            return self.model.guide(eps_c, eps_0, self.guidance)
        push = torch.where(slope == 0, 0, gamma / slope)
        return self.model.guide(eps_c - guide.strength * push, eps_0, self.guidance)

    def _compute_slope(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The factor, a scalar, that converts a difference of the model's own predictions to units of noise."""
        level = self.model.find_noise_level(torch.as_tensor(t).reshape(1))
        sign = -1 if self.model.space == "x0" else 1
        return sign * shape_like(space_weight(level, self.model.space, "eps").sqrt(), x_t)
