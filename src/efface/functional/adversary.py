"""Attacks with gradients on continuous inputs: projected descent, many rows at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

Rule = Literal["adam", "sign"]


def descend(
    error: Callable[[Tensor], Tensor],
    start: Tensor,
    steps: int,
    lr: float,
    rule: Rule = "adam",
    radius: float | None = None,
) -> Tensor:
    """The inputs [n, ...] after `steps` steps that lower each row's error, without a gradient.

    Rows do not influence each other: the errors' sum is differentiated, and both rules work number by number.

    Args:
        error: the error [n] of inputs [n, ...]; called once a step.
        rule: Adam, or steps of `lr` against the gradient's sign (PGD, Madry et al., arXiv 1706.06083).
        radius: after each step inputs are put back to within this of the start, in each number; None leaves them free.
    """
    if rule not in get_args(Rule):
        raise ValueError(f"no rule {rule!r}; there are {', '.join(get_args(Rule))}")
    if steps < 0 or lr <= 0 or (radius is not None and radius <= 0):
        raise ValueError(f"steps are not negative, lr and radius above 0: got {steps}, {lr}, {radius}")
    start = start.detach()
    moved = start.clone().requires_grad_()
    adam = torch.optim.Adam([moved], lr=lr)
    for _ in range(steps):
        with torch.enable_grad():  # also where the caller wants none
            (grad,) = torch.autograd.grad(error(moved).sum(), [moved])
        if rule == "adam":
            moved.grad = grad
            adam.step()
        with torch.no_grad():
            if rule == "sign":
                moved -= lr * grad.sign()
            if radius is not None:
                moved.copy_(torch.clamp(moved, start - radius, start + radius))
    return moved.detach()
