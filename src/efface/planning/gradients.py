"""What an attack by gradients will take, said before it starts, and how many rows of it fit at once.

need = weights + step(m): the weights of the model, and what differentiating m rows adds, a straight line through passes
of one and two rows. These are gone through with the shapes of tensors alone; a network that cannot do without numbers
makes the passes. No weight requires a gradient meanwhile, so that activations are kept for the prompt's sake alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from ..models.base import Model
from .machine import format_size
from .plan import SPARE, DoesNotFit, list_resting
from .probe_steps import LinearFit
from .shapes import shapes_alone
from .tracker import AllocationTracker, count_bytes

PREFIX = 5
"""Token embeddings before the prompt, as the attacks that are planned have them; more cost nothing more."""


@final
@dataclass(frozen=True)
class GradientPlan:
    """Bytes and rows of an attack by gradients."""

    weights: int
    """Bytes of the model's parameters on the device."""
    step: LinearFit
    """Bytes that a gradient adds, by rows that are differentiated at once."""
    rows: int
    """Rows that are attacked together."""
    at_once: int
    """Rows of them that are differentiated at once."""

    @property
    def need(self) -> int:
        """Bytes on the device at the worst moment."""
        return self.weights + self.step(self.at_once)

    def table(self) -> str:
        """Writes the plan as text, a line for each part."""
        lines = [
            ("weights of the model", self.weights),
            (f"a gradient, {self.at_once} of {self.rows} rows at once", self.step(self.at_once)),
            ("at most, on the device", self.need),
        ]
        return "\n".join(f"  {name:<40} {format_size(n):>9}" for name, n in lines)


def plan_gradients(model: Model, rows: int, limit: int | None) -> GradientPlan:
    """The plan with as many rows at once as fit: all of them, or half, or a quarter … or one.

    Args:
        rows: rows that an attack takes together.
        limit: bytes that it may need; None takes all rows at once.

    Raises:
        DoesNotFit: not even one row at once fits; says what would.
    """
    plan = GradientPlan(_weights(model), measure_gradient(model), rows, rows)
    if limit is None:
        return plan
    while plan.need * SPARE > limit and plan.at_once > 1:
        plan = replace(plan, at_once=plan.at_once // 2)
    if plan.need * SPARE > limit:
        raise DoesNotFit(
            f"an attack by gradients needs {format_size(round(plan.need * SPARE))} and there are {format_size(limit)}\n"
            f"{plan.table()}\n--dtype bf16 or fp16 and --offload take less, or leave the attacks by gradients out"
        )
    return plan


def measure_gradient(model: Model) -> LinearFit:
    """Bytes that a gradient to the prompts adds, by rows that are differentiated at once."""
    try:
        sizes = [_measure_shapes(model, n) for n in (1, 2)]
    except RuntimeError:  # a network or a kernel that needs numbers
        sizes = [_measure_pass(model, n) for n in (1, 2)]
    return LinearFit.through(*sizes)


def _measure_shapes(model: Model, n: int) -> int:
    start = _start(model)
    with shapes_alone(model, list(model.weights.values())) as tracker:
        _differentiate(model, n, start)
    return tracker.peak


def _measure_pass(model: Model, n: int) -> int:
    start = _start(model)
    with AllocationTracker(model.weights.values()) as tracker:
        _differentiate(model, n, start)
    return tracker.peak


def _start(model: Model) -> Tensor | None:
    """Embeddings [1, k, d] of a prefix of the empty prompt; None where no token embeddings are read."""
    try:
        own = model.embed(model.tokenize([""])).detach().float()
    except ValueError:
        return None
    return own[:, 1 : 1 + min(PREFIX, own.shape[1] - 2)]


def _differentiate(model: Model, n: int, start: Tensor | None) -> None:
    """One step of an attack on n rows, at states of zeros."""
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


def _weights(model: Model) -> int:
    lying = [tensor for tensor in model.weights.values() if tensor.device == model.device]
    return count_bytes([*lying, *list_resting(model)])
