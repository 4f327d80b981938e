"""What drawing is told where nothing is said, and what it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Defaults:
    """What a model suggests where nothing is said."""

    steps: int = 50
    guidance: float = 7.5
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Arguments by method; empty for models of the papers' size, whose values are the presets' own."""


@dataclass(frozen=True)
class Draw:
    """What sampling n pictures left. `x` is as the network reads it; the rest is empty unless recorded."""

    x: Tensor
    """[n, c, h, w]: the end of the trajectory, or the state at `until`."""
    t: Tensor
    """[m]: the timesteps visited."""
    states: Tensor
    """[m, n, c, h, w]: the network's input at each of them."""
    eps_c: Tensor
    """[m, n, c, h, w]: the prediction under the condition, in the model's own space."""
    eps_0: Tensor
    """[m, n, c, h, w]: the prediction under the empty prompt."""


def drawn(x: Tensor, visited: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Draw:
    """The end of a trajectory, and what was recorded on the way: (t, state, eps_c, eps_0) at each step."""
    if not visited:
        empty = x.new_empty(0)
        return Draw(x, empty, empty, empty, empty)
    t, states, eps_c, eps_0 = (torch.stack(column) for column in zip(*visited, strict=True))
    return Draw(x, t, states, eps_c, eps_0)
