"""Pictures that exist taken back to the noise they might have come from, and drawn again from there.

DDIM's sampling is an ODE (Song et al., arXiv 2010.02502, section 4.3), so it can be walked backwards: at the k-th
timestep the wanted state solves x_k = unstep(x_{k+1}, prediction at x_k), where x_{k+1} stands in for x_k in the
prediction (Dhariwal & Nichol, arXiv 2105.05233, appendix F). The error falls with the number of steps; `refine`
repeats the step with the state found so far, which takes it away at any number, where that converges. An x0 that the
model's own schedule would clip is not clipped, for that could not be undone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..functional.inversion import ddim_step, ddim_unstep
from .base import Model
from .cond import Cond
from .guide import Plain


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
    """The start noise [n, c, h, w] from which `redraw` gets to these latents [n, c, h, w].

    Raises:
        ValueError: the last step forgets where it came from, as where x0 is predicted and no noise is left.
    """
    predict, x = _predictor(model, len(latents), cond, uncond, guidance), latents
    times, bars = _levels(model, steps)
    if model.space == "x0" and bars[-1] == 1:
        raise ValueError(f"{model.name} predicts the picture and ends without noise: its last step has no way back")
    for i in reversed(range(steps)):
        a, b = (bars[k].expand(len(x)) for k in (i, i + 1))
        guess = x
        for _ in range(1 + refine):
            guess = ddim_unstep(x, predict(i, guess, times[i]), a, b, model.space)
        x = guess
    return x


@torch.no_grad()
def redraw(model: Model, noise: Tensor, cond: Cond, uncond: Cond, *, steps: int, guidance: float) -> Tensor:
    """The latents that DDIM draws from this start noise [n, c, h, w], under whatever guide the model is under."""
    predict, x = _predictor(model, len(noise), cond, uncond, guidance), noise
    times, bars = _levels(model, steps)
    for i in range(steps):
        a, b = (bars[k].expand(len(x)) for k in (i, i + 1))
        x = ddim_step(x, predict(i, x, times[i]), a, b, model.space)
    return x


def _levels(model: Model, steps: int) -> tuple[Tensor, Tensor]:
    """DDIM's timesteps [steps], noisiest first, and their alpha bars [steps + 1] with that of the clean end."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    scheduler = model.scheduler("ddim")
    scheduler.set_timesteps(steps)
    clean = torch.as_tensor(scheduler.final_alpha_cumprod, dtype=torch.double).reshape(1)
    bars = torch.cat([model.alphas_bar[scheduler.timesteps.long()], clean])
    return scheduler.timesteps.to(model.device), bars.to(model.device, torch.float32)


def _predictor(
    model: Model, n: int, cond: Cond, uncond: Cond, guidance: float
) -> Callable[[int, Tensor, Tensor], Tensor]:
    """A function of step, state and timestep to the prediction that a sampler would get."""
    cond, uncond = cond.expand(n), uncond.expand(n)
    guide = model._guide
    walk = guide.begin(model, cond, uncond, guidance) if guide else Plain(cond, uncond, guidance)

    def predict(i: int, x: Tensor, t: Tensor) -> Tensor:
        asked = list(dict.fromkeys(walk.conds(i)))
        return walk.combine(i, x, t, dict(zip(asked, model.predict(x, t, *asked), strict=True)))

    return predict
