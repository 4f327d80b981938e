"""The loss that diffusion models are trained by: what was the noise in these pictures?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .schedules import Space, convert, noised


def denoising_errors(
    predict: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    alphas_bar: Tensor,
    space: Space,
    rng: torch.Generator,
) -> Tensor:
    """Mean squared errors [n] of predictions for pictures x0 [n, ...], each under noise of a timestep drawn evenly.

    Args:
        predict: a function of states x_t [n, ...] and timesteps t [n] to predictions [n, ...] in `space`.
        alphas_bar: cumulative alpha products [T].
        rng: on the CPU; timesteps are drawn first, then noise.
    """
    t = torch.randint(len(alphas_bar), (len(x0),), generator=rng)
    eps = torch.randn(x0.shape, generator=rng).to(x0)
    bar = alphas_bar[t].to(x0)
    x_t = noised(x0, eps, bar)
    wanted = convert(eps, x_t, bar, "eps", space)
    return (predict(x_t, t.to(x0.device)).float() - wanted.float()).square().flatten(1).mean(dim=1)
