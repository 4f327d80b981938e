"""The training loss of diffusion models."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .schedules import NoiseLevel, Space, add_noise, denoising_target


def measure_denoising_errors(
    predict: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    noise_level: Callable[[Tensor], NoiseLevel],
    timesteps: int,
    space: Space,
    rng: torch.Generator,
) -> Tensor:
    """The mean squared errors [n] of predictions for pictures x0 [n, ...], with noise of uniformly drawn timesteps.

    Args:
        predict: a function of states x_t [n, ...] and timesteps t [n], on the CPU, to predictions [n, ...] in `space`.
        x0: the pictures [n, ...].
        noise_level: gives the noise levels of timesteps t [n].
        timesteps: the number of timesteps, which count from 0.
        space: the space of predictions.
        rng: a generator on the CPU; timesteps are drawn first, then noise.
    """
    t = torch.randint(timesteps, (len(x0),), generator=rng)
    eps = torch.randn(x0.shape, generator=rng).to(x0, non_blocking=True)
    level = noise_level(t)
    x_t = add_noise(x0, eps, level)
    wanted = denoising_target(x0, eps, x_t, level, space)
    return (predict(x_t, t).float() - wanted.float()).square().flatten(1).mean(dim=1)
