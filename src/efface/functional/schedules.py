"""The affine maps between noise, velocity and image predictions at one (x_t, t).

`alpha_bar` is the cumulative alpha product at t; with x_t = sqrt(ab) x0 + sqrt(1 - ab) eps and
v = sqrt(ab) eps - sqrt(1 - ab) x0 (Salimans & Ho, arXiv 2202.00512), each prediction is an affine image of the others.
A target whose coefficients sum to one is therefore the same target in every space, up to a weight.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Space = Literal["eps", "v", "x0"]


def like(alpha_bar: Tensor, x: Tensor) -> Tensor:
    """`alpha_bar` [n] shaped to multiply `x` [n, ...]."""
    return alpha_bar.to(x).reshape(-1, *[1] * (x.dim() - 1))


def noised(x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """The forward process: x_t [n, ...] from x0 and eps [n, ...] at alpha_bar [n]."""
    a = like(alpha_bar, x0)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


def to_x0(prediction: Tensor, x_t: Tensor, alpha_bar: Tensor, space: Space) -> Tensor:
    """The image that a prediction in `space` stands for; all tensors [n, ...], alpha_bar [n]."""
    a = like(alpha_bar, x_t)
    if space == "eps":
        return (x_t - (1 - a).sqrt() * prediction) / a.sqrt()
    if space == "v":
        return a.sqrt() * x_t - (1 - a).sqrt() * prediction
    return prediction


def from_x0(x0: Tensor, x_t: Tensor, alpha_bar: Tensor, space: Space) -> Tensor:
    """The inverse of `to_x0`."""
    a = like(alpha_bar, x_t)
    if space == "eps":
        return (x_t - a.sqrt() * x0) / (1 - a).sqrt()
    if space == "v":
        return (a.sqrt() * x_t - x0) / (1 - a).sqrt()
    return x0


def convert(prediction: Tensor, x_t: Tensor, alpha_bar: Tensor, given: Space, wanted: Space) -> Tensor:
    """A prediction in space `given`, said in space `wanted`."""
    return from_x0(to_x0(prediction, x_t, alpha_bar, given), x_t, alpha_bar, wanted)


def space_weight(alpha_bar: Tensor, native: Space, space: Space) -> Tensor:
    """How much a squared error in `native` grows when it is measured in `space`: [n], from alpha_bar [n].

    The square of the slope of the affine map; (1 - ab) / ab from eps to x0, the weight that EAP's x0 loss hides.
    """
    for name in (native, space):
        if name not in get_args(Space):
            raise ValueError(f"no space {name!r}; there are {', '.join(get_args(Space))}")
    in_x0 = {"eps": (1 - alpha_bar) / alpha_bar, "v": 1 - alpha_bar, "x0": torch.ones_like(alpha_bar)}
    return torch.ones_like(alpha_bar) if native == space else in_x0[native] / in_x0[space]
