"""Calls a network on many rows piece by piece, and recomputes the activations in the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .cond import Cond


def call_in_pieces(
    call: Callable[[Tensor, Tensor, Cond], Tensor], x: Tensor, t: Tensor, cond: Cond, rows_at_once: int
) -> Tensor:
    """The predictions [n, ...] of `call` for states x [n, ...], timesteps t [n] and n rows of cond.

    With `rows_at_once` 0, or at least n, it is one plain call. Otherwise each piece is computed again in the backward
    pass: the weights, guides and hooks in place must stay until then, or `call` itself must put them in place.
    """
    if not 0 < rows_at_once < len(x):
        return call(x, t, cond)
    pieces = [slice(i, i + rows_at_once) for i in range(0, len(x), rows_at_once)]
    done = [checkpoint(call, x[p], t[p], cond[p], use_reentrant=False, determinism_check="none") for p in pieces]
    return torch.cat(done)  # type: ignore[arg-type]
