"""The affine maps between noise, velocity, image and flow predictions at one (x_t, t).

A state is x_t = alpha x_0 + sigma eps. Diffusion models preserve the variance, alpha^2 + sigma^2 = 1 with alpha^2 the
cumulative alpha product (Ho et al., arXiv 2006.11239); flow models are linear, alpha + sigma = 1 (Liu et al., arXiv
2209.03003). A network predicts one of

    eps     the noise
    x0      the picture
    v       alpha eps - sigma x_0 (Salimans & Ho, arXiv 2202.00512)
    flow    u = eps - x_0, the velocity dx_t / dsigma of a flow model

and these are affine maps of each other. A target whose coefficients sum to one is therefore the same target in every
space, up to a weight.

Coefficients and results are computed at least in fp32: near the clean end 1 - alpha^2 vanishes in half precision.
Levels stay on the CPU; factors of a tensor on a GPU are copied there asynchronously.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..concept import check_choice

Space = Literal["eps", "v", "x0", "flow"]


@dataclass(frozen=True, eq=False)
class NoiseLevel:
    """The coefficients of picture and noise in n states: x_t = alpha x_0 + sigma eps.

    Example:
        >>> NoiseLevel.from_alpha_bar(torch.tensor([0.36])).sigma
        tensor([0.8000], dtype=torch.float64)
        >>> NoiseLevel.from_flow(torch.tensor([0.25])).alpha
        tensor([0.7500], dtype=torch.float64)
    """

    alpha: Tensor
    """[n], fp64: the coefficient of the picture."""
    sigma: Tensor
    """[n], fp64: the coefficient of the noise."""

    @staticmethod
    def from_alpha_bar(alpha_bar: Tensor) -> NoiseLevel:
        """Levels that preserve the variance, from cumulative alpha products [n]; 1 - alpha_bar in their own dtype."""
        return NoiseLevel(alpha_bar.double().sqrt(), (1 - alpha_bar).double().sqrt())

    @staticmethod
    def from_flow(sigma: Tensor) -> NoiseLevel:
        """Levels on the straight path from picture to noise, from sigma [n] in [0, 1]."""
        return NoiseLevel(1 - sigma.double(), sigma.double())

    def __len__(self) -> int:
        return len(self.alpha)

    def __getitem__(self, rows: slice | Tensor) -> NoiseLevel:
        return NoiseLevel(self.alpha[rows], self.sigma[rows])

    def expand(self, n: int) -> NoiseLevel:
        """Returns n levels, from n or from one that is repeated."""
        return NoiseLevel(self.alpha.expand(n), self.sigma.expand(n))


def widen(x: Tensor) -> Tensor:
    """Casts `x`, of any shape, to fp32 where its dtype is narrower; fp32 and fp64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def shape_like(numbers: Tensor, x: Tensor) -> Tensor:
    """Shapes `numbers` [n] to multiply `x` [n, ...], on its device and in its dtype, or in fp32 if that is narrower."""
    wide = numbers.to(x.device, torch.promote_types(x.dtype, torch.float32), non_blocking=True)
    return wide.reshape(-1, *[1] * (x.dim() - 1))


def _shape_level(share: Tensor, x: Tensor) -> Tensor:
    """Shapes alpha or sigma [n] to multiply x [n, ...].

    It takes the root of the rounded square, not the rounded root: torch's root in fp32 may be off by one in the last
    place, and so states, and edits trained on them, are bit-identical to those with a rounded alpha_bar.
    """
    return shape_like(share.square(), x).sqrt()


def add_noise(x0: Tensor, eps: Tensor, level: NoiseLevel) -> Tensor:
    """The forward process: x_t [n, ...] from x0 and eps [n, ...] at n levels, in fp32 at least."""
    return _shape_level(level.alpha, x0) * x0 + _shape_level(level.sigma, x0) * eps


def to_x0(prediction: Tensor, x_t: Tensor, level: NoiseLevel, space: Space) -> Tensor:
    """Converts a prediction in `space` to x0; all tensors are [n, ...], with n levels."""
    alpha, sigma = _shape_level(level.alpha, x_t), _shape_level(level.sigma, x_t)
    if space == "eps":
        return (x_t - sigma * prediction) / alpha
    if space == "v":
        return (alpha * x_t - sigma * prediction) / shape_like(_measure_length(level), x_t)
    if space == "flow":
        return (x_t - sigma * prediction) / shape_like(level.alpha + level.sigma, x_t)
    return prediction


def from_x0(x0: Tensor, x_t: Tensor, level: NoiseLevel, space: Space) -> Tensor:
    """Inverts `to_x0`, for x0 and x_t [n, ...]; where no noise is left, the inverse exists only for "x0"."""
    alpha, sigma = _shape_level(level.alpha, x_t), _shape_level(level.sigma, x_t)
    if space == "eps":
        return (x_t - alpha * x0) / sigma
    if space == "v":
        return (alpha * x_t - shape_like(_measure_length(level), x_t) * x0) / sigma
    if space == "flow":
        return (x_t - shape_like(level.alpha + level.sigma, x_t) * x0) / sigma
    return x0


def convert(prediction: Tensor, x_t: Tensor, level: NoiseLevel, given: Space, wanted: Space) -> Tensor:
    """Converts a prediction [n, ...] from space `given` to space `wanted`, at states x_t [n, ...] of n levels.

    The result is at least in fp32; where both spaces are the same it is the prediction itself, bit for bit. A
    prediction of noise is not finite in another space where the state is all noise, because it says nothing of x0.
    """
    if given == wanted:
        return widen(prediction)
    x0 = to_x0(prediction, x_t, level, given)
    found = from_x0(x0, x_t, level, wanted)
    return _combine_at_ends(x0, prediction, level, wanted, found) if given == "eps" else found


def denoising_target(x0: Tensor, eps: Tensor, x_t: Tensor, level: NoiseLevel, space: Space) -> Tensor:
    """The prediction of a perfect denoiser in `space` at x_t = alpha x0 + sigma eps; tensors [n, ...], n levels.

    It is exact also where the state is all noise or all picture: there, and for a flow, it is computed from x0 and eps.
    """
    if space == "flow":
        return widen(eps) - widen(x0)
    return _combine_at_ends(x0, eps, level, space, convert(eps, x_t, level, "eps", space))


def _combine_at_ends(x0: Tensor, eps: Tensor, level: NoiseLevel, space: Space, found: Tensor) -> Tensor:
    """Computes `found` [n, ...], a prediction in `space`, from x0 and eps where alpha or sigma is 0, else keeps it."""
    end = (level.alpha == 0) | (level.sigma == 0)
    if not end.any():
        return found
    x0, eps = widen(x0), widen(eps)
    alpha, sigma = shape_like(level.alpha, x0), shape_like(level.sigma, x0)
    there = {"eps": eps, "v": alpha * eps - sigma * x0, "x0": x0, "flow": eps - x0}[space]
    return torch.where(shape_like(end, x0).bool(), there.to(found), found)


def space_weight(level: NoiseLevel, native: Space, space: Space) -> Tensor:
    """The factor of a squared error in `native` when it is measured in `space`: [n] in fp32, from n levels.

    It is the square of the slope of the affine map: (sigma / alpha)^2 from eps to x0, which is the implicit weight of
    EAP's x0 loss, and sigma^2 from flow to x0.

    Raises:
        ValueError: there is no such space.
    """
    for name in (native, space):
        check_choice("space", name, get_args(Space))
    picture, noise = level.alpha.square().float(), level.sigma.square().float()
    if native == "flow":  # the quotient below with the noise cancelled, so that it holds at sigma 0 and 1 too
        reach = (level.alpha + level.sigma).square().float()
        slopes = {"eps": picture, "v": _measure_length(level).square().float(), "x0": noise, "flow": reach}
        return torch.ones_like(noise) if space == "flow" else slopes[space] / reach
    in_x0 = {
        "eps": noise / picture,
        "v": noise / _measure_length(level).square().float(),
        "x0": torch.ones_like(noise),
        "flow": noise / (level.alpha + level.sigma).square().float(),
    }
    return torch.ones_like(noise) if native == space else in_x0[native] / in_x0[space]


def _measure_length(level: NoiseLevel) -> Tensor:
    """alpha^2 + sigma^2 [n]: exactly 1 where the variance is preserved, however alpha_bar was rounded."""
    length = level.alpha.square() + level.sigma.square()
    return torch.where((length - 1).abs() < 1e-6, 1.0, length)
