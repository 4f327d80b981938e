"""Targets and distances of the erasure objectives; all predictions [n, ...] in one space."""

from __future__ import annotations

from torch import Tensor


def negative_guidance(eps_0: Tensor, eps_c: Tensor, eta: float) -> Tensor:
    """ESD's target: eps(0) - eta (eps(c) - eps(0)), on the other side of the unconditional prediction.

    Gandikota et al., arXiv 2303.07345, eq. 7, for predictions [n, ...] of one shape, which the target has too. eta = 0
    gives the unconditional prediction itself.

    >>> negative_guidance(Tensor([[1.0]]), Tensor([[3.0]]), eta=0.5)
    tensor([[0.]])
    """
    return eps_0 - eta * (eps_c - eps_0)


def apply_guidance(eps_0: Tensor, eps_c: Tensor, guidance: float | Tensor) -> Tensor:
    """Computes eps(0) + w (eps(c) - eps(0)) [n, ...]: classifier-free guidance (Ho & Salimans, arXiv 2207.12598).

    `guidance` is a number, or a tensor that broadcasts to the predictions' shape.
    """
    return eps_0 + guidance * (eps_c - eps_0)


def rescale_guided(prediction: Tensor, eps_c: Tensor, share: float) -> Tensor:
    """Moves a guided prediction's [n, ...] standard deviation by `share` of the way to that of eps(c) [n, ...].

    Lin et al., arXiv 2305.08891, section 3.4, equations 14 to 16: guidance with a high scale increases the deviation
    and so overexposes pictures. `share` is their phi, diffusers' `guidance_rescale`; deviations are computed for each
    row.

    >>> import torch
    >>> rescale_guided(torch.tensor([[0.0, 4.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
    tensor([[0.0000, 2.5000]])
    """
    over = list(range(1, prediction.dim()))
    deviation = eps_c.std(dim=over, keepdim=True) / prediction.std(dim=over, keepdim=True)
    return share * (prediction * deviation) + (1 - share) * prediction


def weighted_mse(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The mean over rows of weight [n] times each row's mean squared error: a scalar in fp32."""
    return weighted_errors(prediction, target, weight).mean()


def weighted_errors(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weight [n] times each row's mean squared error: [n], in fp32."""
    errors = (prediction.float() - target.float()).square().flatten(1).mean(dim=1)
    return weight.to(errors, non_blocking=True) * errors
