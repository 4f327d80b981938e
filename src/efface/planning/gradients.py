"""Plans the memory of an attack by gradients before it starts, and how many rows of it fit at once.

need = weights + step(m): the weights of the model, and what differentiating m rows adds, which is fitted to passes of
one and two rows. These passes run with the shapes of tensors alone, or really, where a network needs numbers.
No weight requires a gradient meanwhile, so that activations are kept for the prompt's gradient alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from ..models.base import Model
from ..models.offload import list_resting
from ..plurals import write_count
from .machine import format_size
from .plan import SPARE, DoesNotFit
from .probe_steps import Moments, PeakFit
from .shapes import shapes_alone
from .tracker import AllocationTracker, count_bytes

PREFIX = 5
"""Number of token embeddings before the prompt, as in the planned attacks; their number hardly changes the memory."""


@final
@dataclass(frozen=True)
class GradientPlan:
    """The bytes and rows of an attack by gradients."""

    weights: int
    """Bytes of the model's parameters on the device."""
    step: PeakFit
    """Bytes that a gradient adds, by the number of rows that are differentiated at once."""
    rows: int
    """Number of rows that are attacked together."""
    at_once: int
    """Number of these rows that are differentiated at once."""

    @property
    def need(self) -> int:
        """Bytes on the device at the worst moment."""
        return self.weights + self.step(self.at_once)

    def format_table(self) -> str:
        """Writes the plan as text, a line for each part."""
        lines = [
            ("weights of the model", self.weights),
            (f"a gradient, {self.at_once} of {write_count(self.rows, 'row')} at once", self.step(self.at_once)),
            ("at most, on the device", self.need),
        ]
        return "\n".join(f"  {name:<40} {format_size(n):>9}" for name, n in lines)


def plan_gradients(model: Model, rows: int, limit: int | None) -> GradientPlan:
    """Makes the plan with as many rows at once as fit: all of them, or half, or a quarter … or one.

    Args:
        model: the model that is attacked.
        rows: number of rows that are attacked together.
        limit: number of bytes that it may need; None takes all rows at once.

    Raises:
        DoesNotFit: not even one row at once fits; the message says what would.
    """
    plan = GradientPlan(_count_weights(model), measure_gradient(model), rows, rows)
    if limit is None:
        return plan
    while plan.need * SPARE > limit and plan.at_once > 1:
        plan = replace(plan, at_once=plan.at_once // 2)
    if plan.need * SPARE > limit:
        raise DoesNotFit(
            f"an attack by gradients needs {format_size(round(plan.need * SPARE))} and there are {format_size(limit)}\n"
            f"{plan.format_table()}\n"
            "--dtype bf16 or fp16 and --offload take less, or leave the attacks by gradients out"
        )
    return plan


def measure_gradient(model: Model) -> PeakFit:
    """Bytes that a gradient to the prompts adds, by the number of rows that are differentiated at once."""
    try:
        one, two = (_measure_shapes(model, n) for n in (1, 2))
    except RuntimeError:  # a network or a kernel that needs numbers
        one, two = (_measure_pass(model, n) for n in (1, 2))
    return PeakFit.through(one, two)


def _measure_shapes(model: Model, n: int) -> Moments:
    start = _start(model)
    with shapes_alone(model, list(model.weights.values())) as tracker:
        _differentiate(model, n, start)
    return tracker.moments


def _measure_pass(model: Model, n: int) -> Moments:
    start = _start(model)
    with AllocationTracker(model.weights.values()) as tracker:
        _differentiate(model, n, start)
    return tracker.moments


def _start(model: Model) -> Tensor | None:
    """Embeddings [1, k, d] of a prefix of the empty prompt; None where the model reads no token embeddings."""
    try:
        own = model.embed(model.tokenize([""])).detach().float()
    except ValueError:
        return None
    return own[:, 1 : 1 + min(PREFIX, own.shape[1] - 2)]


def _differentiate(model: Model, n: int, start: Tensor | None) -> None:
    """Makes one step of an attack on n rows, at states of zeros."""
    x = torch.zeros(n, *model.latent_shape, device=model.device, dtype=model.state_dtype)
    with model.frozen(), torch.enable_grad():
        if start is None:
            cond = model.encode([""]).expand(n)
            leaf = cond.embedding.detach().clone().requires_grad_()
            cond = cond.with_embedding(leaf)
        else:
            leaf = start.expand(n, *start.shape[1:]).clone().requires_grad_()
            cond = model.encode_with_grad([""] * n, leaf)
        said = model.predict(x, torch.ones(n), cond)[0]
        torch.autograd.grad((said - x).square().flatten(1).mean(dim=1).sum(), [leaf])


def _count_weights(model: Model) -> int:
    lying = [tensor for tensor in model.weights.values() if tensor.device == model.device]
    return count_bytes([*lying, *list_resting(model)])
