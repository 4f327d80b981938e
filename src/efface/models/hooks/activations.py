"""Measures neurons by forward hooks on the denoiser's layers; a neuron is an output channel of a layer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..base import Model
from ..cond import Cond

LAYERS = r"\.attn2\.to_out\.0$|\.ff\.net\.2$"
"""The outputs of cross-attention and of feed-forward blocks."""


@dataclass(frozen=True)
class Layer:
    """A layer whose output is measured."""

    name: str
    """Its weight's checkpoint name, without `.weight`."""
    module: nn.Module
    neurons: int


def find_layers(model: Model, pattern: str = LAYERS) -> list[Layer]:
    """The denoiser's linear and convolutional layers whose names match a regular expression.

    Raises:
        ValueError: the pattern is no regular expression, or matches no layer; the message says which layers exist.
    """
    known = {
        name.removesuffix(".weight"): owner
        for name, owner in model.owners.items()
        if name.startswith(f"{model.denoiser}.")
        and name.endswith(".weight")
        and isinstance(owner, nn.Linear | nn.Conv2d)
    }
    try:
        found = [name for name in known if re.search(pattern, name)]
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    if not found:
        ends = sorted({".".join(re.sub(r"\.\d+", ".N", name).split(".")[-3:]) for name in known})
        raise ValueError(f"no layer of {model.name} matches {pattern!r}; their names end in {', '.join(ends)}")
    return [Layer(name, known[name], len(known[name].weight)) for name in found]  # type: ignore[arg-type]


@torch.no_grad()
def measure_activations(
    model: Model, looked_at: Sequence[Layer], states: Tensor, t: Tensor, cond: Cond, batch: int
) -> Tensor:
    """The L1 norm of each neuron divided by the number of positions: fp64 [n, neurons] on the CPU, in layer order.

    `states` [n, c, h, w] are at timesteps t [n]; cond has n rows or one; the network reads `batch` rows at a time.

    Raises:
        ValueError: a layer has no output of its own for each row, or is not called.
        ArithmeticError: activations are NaN or infinite.
    """
    cond, rows = cond.expand(len(states)), []
    for start in range(0, len(states), batch):
        part = slice(start, start + batch)
        with model.uncompiled(), _watched(looked_at) as seen:
            model.predict(states[part], t[part], cond[part])
        if strange := [each.name for each in looked_at if len(seen.get(each.name, ())) != len(states[part])]:
            raise ValueError(
                f"{strange[0]} ({len(strange)} such) has no output for each row of a batch, so that its neurons can't "
                "be measured; leave it out of the pattern"
            )
        rows.append(torch.cat([seen[layer.name] for layer in looked_at], dim=1))
        if not rows[-1].isfinite().all():
            raise ArithmeticError(f"activations of {model.name} are NaN or infinite; a wider dtype may help")
    return torch.cat(rows)


@contextmanager
def _watched(looked_at: Sequence[Layer]) -> Iterator[dict[str, Tensor]]:
    """Gives the activations [n, neurons] of each layer, by its name, in the latest forward pass."""
    seen: dict[str, Tensor] = {}

    def hook(layer: Layer) -> Any:
        def look(module: nn.Module, _args: Any, out: Tensor) -> None:
            last = out if isinstance(module, nn.Linear) else out.movedim(1, -1)
            seen[layer.name] = last.detach().double().abs().reshape(len(last), -1, last.shape[-1]).mean(1).cpu()

        return look

    handles = [layer.module.register_forward_hook(hook(layer)) for layer in looked_at]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
