"""DDIM inversion: finds the noise from which the sampler draws a given picture, and draws from it again.

DDIM sampling solves an ODE (Song et al., arXiv 2010.02502, section 4.3), and so does Euler's method for a flow, so both
can be run backwards: at the k-th timestep the wanted state solves x_k = unstep(x_{k+1}, prediction at x_k), where
x_{k+1} replaces x_k in the prediction (Dhariwal & Nichol, arXiv 2105.05233, appendix F). The error falls with the
number of steps; `refine` repeats each step with the state found so far, which removes the error for any number of steps
where it converges. An x0 that the model's own schedule would clip is not clipped, because clipping can't be undone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..functional.inversion import ddim_unstep
from ..functional.schedules import NoiseLevel
from .base import Model
from .cond import Cond
from .guider import predict_with_guidance
from .trajectory import set_timesteps


@torch.no_grad()
def invert(
    model: Model,
    latents: Tensor,
    cond: Cond,
    uncond: Cond,
    *,
    steps: int,
    guidance: float = 1.0,
    refine: int = 0,
) -> Tensor:
    """The start noise [n, c, h, w] from which `redraw` returns to these latents [n, c, h, w].

    Raises:
        ValueError: the last step can't be inverted, as where x0 is predicted and no noise is left.
    """
    x, sampling = latents, model.begin_sampling(cond.expand(len(latents)), uncond.expand(len(latents)), guidance)
    times, before, after = _list_levels(model, steps)
    if model.space == "x0" and after.sigma[-1] == 0:
        raise ValueError(f"{model.name} predicts the picture and ends without noise: its last step can't be inverted")
    for i in reversed(range(steps)):
        start, end = (levels[i : i + 1].expand(len(x)) for levels in (before, after))
        guess = x
        for _ in range(1 + refine):
            guess = ddim_unstep(
                x, predict_with_guidance(model, sampling, i, guess, times[i])[0], start, end, model.space
            )
        x = guess
    return x


def redraw(model: Model, noise: Tensor, cond: Cond, uncond: Cond, *, steps: int, guidance: float) -> Tensor:
    """The latents [n, c, h, w] that DDIM draws from this start noise [n, c, h, w], under the guide in place."""
    seeds = range(len(noise))  # DDIM adds no noise of its own
    return model.sample(cond, uncond, seeds, steps=steps, guidance=guidance, sampler="ddim-unclipped", start=noise).x


def _list_levels(model: Model, steps: int) -> tuple[Tensor, NoiseLevel, NoiseLevel]:
    """DDIM's timesteps [steps], noisiest first, and the levels [steps] before and after each step.

    For a flow they are Euler's, and the scheduler holds the levels itself.
    """
    scheduler = set_timesteps(model.build_scheduler("ddim-unclipped"), steps)
    if model.space == "flow":
        levels = NoiseLevel.from_flow(scheduler.sigmas)
        return scheduler.timesteps, levels[:-1], levels[1:]
    times = scheduler.timesteps.long()
    # The scheduler steps by a whole number of timesteps, although their spacing may be rounded.
    following = times - scheduler.config.num_train_timesteps // steps
    clean = NoiseLevel.from_alpha_bar(torch.as_tensor(scheduler.final_alpha_cumprod, dtype=torch.double))
    there = model.levels[following.clamp(min=0)]
    alpha, sigma = (
        torch.where(following >= 0, some, last)
        for some, last in ((there.alpha, clean.alpha), (there.sigma, clean.sigma))
    )
    return times, model.levels[times], NoiseLevel(alpha, sigma)
