"""The deterministic DDIM step between two noise levels, undone.

x_to = sqrt(ab_to) x0 + sqrt(1 - ab_to) eps with x0 and eps what the prediction at `x` stands for (Song et al., arXiv
2010.02502, eq. 12 at sigma = 0). The step is affine in x for a given prediction, so it has an exact inverse; what
inversion of a trajectory lacks is only the prediction at the state that it is looking for.
"""

from __future__ import annotations

from torch import Tensor

from .schedules import Space, like


def ddim_unstep(x: Tensor, prediction: Tensor, ab_from: Tensor, ab_to: Tensor, space: Space) -> Tensor:
    """The state [n, ...] at ab_from [n] from which DDIM, given this prediction there, steps to x [n, ...] at ab_to."""
    a, b = like(ab_from, x), like(ab_to, x)
    if space == "eps":
        return (a / b).sqrt() * (x - ((1 - b).sqrt() - (b * (1 - a) / a).sqrt()) * prediction)
    if space == "v":
        # A rotation by the difference of the levels' angles, seen from the noisier state.
        cos, sin = (a * b).sqrt() + ((1 - a) * (1 - b)).sqrt(), ((1 - a) * b).sqrt() - (a * (1 - b)).sqrt()
        return (x + sin * prediction) / cos
    return (x - b.sqrt() * prediction) * ((1 - a) / (1 - b)).sqrt() + a.sqrt() * prediction
