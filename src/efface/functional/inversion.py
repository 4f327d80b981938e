"""The deterministic DDIM step between two noise levels, undone.

x_to = alpha_to x0 + sigma_to eps with x0 and eps what the prediction at `x` stands for (Song et al., arXiv 2010.02502,
eq. 12 without added noise; on the straight way of a flow model it is Euler's step). The step is affine in x for a given
prediction, so it has an exact inverse; what inversion of a trajectory lacks is only the prediction at the state that it
is looking for.
"""

from __future__ import annotations

from torch import Tensor

from .schedules import NoiseLevel, Space, like


def ddim_unstep(x: Tensor, prediction: Tensor, start: NoiseLevel, end: NoiseLevel, space: Space) -> Tensor:
    """The state [n, ...] at level `start` from which DDIM, given this prediction there, steps to x [n, ...] at `end`.

    Levels are [n]; they preserve the variance, or lie on the straight way where the space is "flow".
    """
    if space == "flow":
        return x + like(start.sigma - end.sigma, x) * prediction
    a, b = like(start.alpha.square(), x), like(end.alpha.square(), x)
    if space == "eps":
        return (a / b).sqrt() * (x - ((1 - b).sqrt() - (b * (1 - a) / a).sqrt()) * prediction)
    if space == "v":
        # A rotation by the difference of the levels' angles, seen from the noisier state.
        cos, sin = (a * b).sqrt() + ((1 - a) * (1 - b)).sqrt(), ((1 - a) * b).sqrt() - (a * (1 - b)).sqrt()
        return (x + sin * prediction) / cos
    return (x - b.sqrt() * prediction) * ((1 - a) / (1 - b)).sqrt() + a.sqrt() * prediction
