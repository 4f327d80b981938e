"""A network's call on many rows in pieces, whose activations are recomputed in the backward pass."""

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

    With 0 rows at once, or n and more, it is one plain call. Else the weights, guides and hooks in place must stay
    until the gradients are taken, or be put in place by `call` itself: each piece is computed again then.
    """
    if not 0 < rows_at_once < len(x):
        return call(x, t, cond)
    pieces = [slice(i, i + rows_at_once) for i in range(0, len(x), rows_at_once)]
    done = [checkpoint(call, x[p], t[p], cond[p], use_reentrant=False, determinism_check="none") for p in pieces]
    return torch.cat(done)  # type: ignore[arg-type]
