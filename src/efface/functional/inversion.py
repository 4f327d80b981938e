"""The inverse of the deterministic DDIM step between two noise levels.

x_to = alpha_to x0 + sigma_to eps, where x0 and eps come from the prediction at `x` (Song et al., arXiv 2010.02502, eq.
12 without added noise; on the straight path of a flow model it is Euler's step). For a given prediction the step is
affine in x, so it has an exact inverse; the inversion of a trajectory lacks only the prediction at the unknown state.
"""

from __future__ import annotations

from torch import Tensor

from .schedules import NoiseLevel, Space, shape_like


def ddim_unstep(x: Tensor, prediction: Tensor, start: NoiseLevel, end: NoiseLevel, space: Space) -> Tensor:
    """The state [n, ...] at level `start` from which DDIM, given this prediction there, steps to x [n, ...] at `end`.

    Levels are [n]; they preserve the variance, or are on the straight path where the space is "flow".
    """
    if space == "flow":
        return x + shape_like(start.sigma - end.sigma, x) * prediction
    a, b = shape_like(start.alpha.square(), x), shape_like(end.alpha.square(), x)
    if space == "eps":
        return (a / b).sqrt() * (x - ((1 - b).sqrt() - (b * (1 - a) / a).sqrt()) * prediction)
    if space == "v":
        # A rotation by the difference of the levels' angles, seen from the noisier state.
        cos, sin = (a * b).sqrt() + ((1 - a) * (1 - b)).sqrt(), ((1 - a) * b).sqrt() - (a * (1 - b)).sqrt()
        return (x + sin * prediction) / cos
    return (x - b.sqrt() * prediction) * ((1 - a) / (1 - b)).sqrt() + a.sqrt() * prediction
