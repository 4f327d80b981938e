"""The inner steps of attacks, which change inputs to lower an error, for many independent rows at once.

They follow a gradient where the error is a network's, and solve for it directly where it is a linear layer's
(`adversarial`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, final, get_args

import torch
from torch import Tensor

from ..concept import check_choice

Rule = Literal["adam", "sign"]


class NoGradient(ValueError):
    """The gradient of an attack is exactly zero, so that nothing was tried and nothing is shown."""


class NotFinite(ArithmeticError):
    """A loss or a gradient is not finite, which is an error of the attack and says nothing about the edit."""


def descend(
    error: Callable[[Tensor], Tensor],
    start: Tensor,
    steps: int,
    lr: float,
    rule: Rule = "adam",
    radius: float | None = None,
    factor: float = 1.0,
) -> Tensor:
    """The inputs [n, ...] after `steps` steps that lower each row's error; the result has no gradient.

    Rows are independent: the sum of errors is differentiated, and both rules work elementwise.

    Args:
        error: the error [n] of inputs [n, ...], the same for the same inputs; it is called once a step, and again
            where gradients overflow.
        start: the first inputs [n, ...].
        steps: the number of steps.
        lr: the step size.
        rule: Adam, or steps of `lr` against the gradient's sign (PGD, Madry et al., arXiv 1706.06083).
        radius: the largest distance of each number from the start, to which inputs are clipped; None for no bound.
        factor: the factor of errors before they are differentiated, by which gradients are divided after (fp16). Where
            gradients overflow, a smaller factor is tried.
    """
    check_choice("rule", rule, get_args(Rule))
    if steps < 0 or lr <= 0 or (radius is not None and radius <= 0):
        raise ValueError(f"steps are not negative, lr and radius above 0: got {steps}, {lr}, {radius}")
    start = start.detach()
    moved = start.clone().requires_grad_()
    adam = torch.optim.Adam([moved], lr=lr)

    def differentiate(factor: float) -> tuple[Tensor, Sequence[Tensor]]:
        errors, grad = _differentiate(error, moved, factor)
        return errors, [grad]

    for _ in range(steps):
        find = differentiate if factor == 1 else partial(_lower_factor, differentiate)  # the latter waits for numbers
        grad = find(factor)[1][0]
        if rule == "adam":
            moved.grad = grad
            adam.step()
        with torch.no_grad():
            if rule == "sign":
                moved -= lr * grad.sign()
            if radius is not None:
                moved.copy_(torch.clamp(moved, start - radius, start + radius))
    return moved.detach()


def measure_steepness(error: Callable[[Tensor], Tensor], at: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """The error [n] of inputs [n, ...] and its gradient [n, ...] for each row by itself, with all rows at once.

    See `steepness_by_parts`, which takes the errors of a part of the rows.
    """
    return measure_steepness_by_parts(lambda inputs, _: error(inputs), at, 0, factor)


def measure_steepness_by_parts(
    error: Callable[[Tensor, slice], Tensor], at: Tensor, rows_at_once: int, factor: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The error [n] of inputs [n, ...] and its gradient [n, ...] for each row by itself, with some rows at once.

    The activations of some rows are freed before those of the next are computed.

    Args:
        error: gives the errors [m] of the inputs [m, ...] of the rows in a slice of range(n).
        at: the inputs [n, ...].
        rows_at_once: the number of rows at once; 0 takes all.
        factor: the factor of errors before they are differentiated, by which gradients are divided after, so that small
            ones do not vanish in fp16. Where gradients overflow, a smaller factor is tried.

    Raises:
        NoGradient: no row has a gradient, so that an attack would only seem to be tried.
        NotFinite: an error or a gradient is no finite number.
    """
    size = rows_at_once or len(at)
    parts = [slice(i, i + size) for i in range(0, len(at), size)]

    def differentiate(factor: float) -> tuple[Tensor, Sequence[Tensor]]:
        found = [_differentiate(lambda inputs, part=part: error(inputs, part), at[part], factor) for part in parts]
        errors, grad = (torch.cat(column) for column in zip(*found, strict=True))
        return errors, [grad]

    errors, (grad,), right_errors, right_grads, moves = _lower_factor(differentiate, factor)
    if not right_errors:
        raise NotFinite("the attack's loss is not finite; a smaller lr, or a wider dtype of the model, may help")
    if not moves:
        raise NoGradient("no gradient reaches the prompt: this model gives the attack nothing to follow")
    if not right_grads:
        raise NotFinite("the attack's gradient is not finite; a smaller lr, or a wider dtype of the model, may help")
    return errors, grad


def differentiate_in_range(
    differentiate: Callable[[float], tuple[Tensor, Sequence[Tensor]]], factor: float, what: str
) -> tuple[Sequence[Tensor], bool]:
    """The gradients of a loss, and whether any number of them is not 0. Where they overflow, a smaller factor is tried.

    Args:
        differentiate: gives the errors [n] of rows, and the gradients of their loss, which it multiplies by the factor
            before and divides by it after; with every factor it draws the same random numbers.
        factor: the first factor, so that small gradients do not vanish in fp16.
        what: the step, for the message of an error.

    Raises:
        NotFinite: an error is no finite number, or a gradient is none at factor 1.
    """
    _, grads, right_errors, right_grads, moves = _lower_factor(differentiate, factor)
    if not (right_errors and right_grads):
        raise NotFinite(f"{what} the loss or its gradient is not finite")
    return grads, moves


def _lower_factor(
    differentiate: Callable[[float], tuple[Tensor, Sequence[Tensor]]], factor: float
) -> tuple[Tensor, Sequence[Tensor], bool, bool, bool]:
    """Errors and gradients by the first factor, of ever smaller ones down to 1, by which no gradient overflows.

    Then whether all errors are finite, whether all gradients are, and whether any number of these is not 0.
    """
    errors, grads = differentiate(factor)
    finite, moves = (torch.stack([test(grad) for grad in grads]) for test in (_is_finite, torch.any))
    checks = torch.stack([_is_finite(errors), finite.all(), moves.any()])  # read at once, because reading waits
    right_errors, right_grads, moved = checks.tolist()
    if right_errors and not right_grads and factor > 1:
        return _lower_factor(differentiate, max(1.0, factor / 16))
    return errors, grads, right_errors, right_grads, moved


def _is_finite(numbers: Tensor) -> Tensor:
    return numbers.isfinite().all()


def _differentiate(error: Callable[[Tensor], Tensor], at: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    leaf = at.detach().requires_grad_()
    with torch.enable_grad():
        errors = error(leaf)
        total = errors.sum() if factor == 1 else errors.sum() * factor
        (grad,) = torch.autograd.grad(total, [leaf], allow_unused=True) if errors.requires_grad else (None,)
    grad = torch.zeros_like(leaf) if grad is None else grad if factor == 1 else grad / factor
    return errors.detach(), grad


@final
class RowwiseAdam:
    """Adam (Kingma & Ba, arXiv 1412.6980) at its default betas on inputs [n, ...], from which rows can be removed.

    `decay` shrinks the inputs by lr * decay in each step, separately from the gradient (AdamW, Loshchilov & Hutter,
    arXiv 1711.05101); a penalty that is part of the error acts through the gradient instead.
    """

    def __init__(self, start: Tensor, lr: float, decay: float = 0.0) -> None:
        if lr <= 0 or decay < 0:
            raise ValueError(f"lr is above 0 and decay not negative: got {lr}, {decay}")
        self.at, self.lr, self.decay, self.done = start.detach().clone(), lr, decay, 0
        self.first, self.second = torch.zeros_like(self.at), torch.zeros_like(self.at)

    def step(self, grad: Tensor) -> None:
        """Takes one step against the gradient [n, ...]."""
        self.done += 1
        self.first.lerp_(grad, 0.1)
        self.second.lerp_(grad.square(), 0.001)
        scale = (self.second / (1 - 0.999**self.done)).sqrt_().add_(1e-8)
        self.at.mul_(1 - self.lr * self.decay).sub_(self.lr / (1 - 0.9**self.done) * self.first / scale)

    def keep(self, rows: Sequence[int]) -> None:
        """Continues with these rows only."""
        left = list(rows)
        self.at, self.first, self.second = self.at[left], self.first[left], self.second[left]


def find_adversarial(inputs: Tensor, gram: Tensor, edit: Tensor, reg: float) -> Tensor:
    """Embeddings c' [n, d] that bring the target back: the edited layers' outputs for c' are the base's for c.

    RECE's attack (Gong et al., ECCV 2024, arXiv 2407.12383): c' minimises sum |W c' - W0 c|^2 + reg |c'|^2 over all
    layers, so c' = (reg I + sum W'W)^-1 (sum W'W0) c. With W = W0 M this needs M = `edit` [d, d] and the layers'
    `gram` = sum W0'W0 [d, d] alone.
    """
    inputs, gram, edit = inputs.double(), gram.double(), edit.double()
    eye = torch.eye(len(gram), dtype=torch.double, device=gram.device)
    return torch.linalg.solve(reg * eye + edit.T @ gram @ edit, edit.T @ gram @ inputs.T).T
