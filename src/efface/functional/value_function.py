"""EraseDiff's step: the remain gradient, turned until the forgetting loss falls fast enough.

min_th L_r subject to g(th) = L_f(th) - min_phi L_f(phi) <= 0, solved to first order (Wu et al., arXiv 2401.05779, after
BOME, arXiv 2209.08709): delta* = argmin 1/2 ||grad L_r - delta||^2 subject to <grad g, delta> >= a_t.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CHUNK = 2**18


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The inner product of two gradients, each a list of tensors; a scalar in fp64, which is made chunk by chunk.

    By rows, which are views in any memory format.
    """
    sums: list[Tensor] = []
    for x, y in (torch.atleast_1d(*pair) for pair in zip(a, b, strict=True)):
        rows = max(1, CHUNK * len(x) // x.numel())
        parts = zip(x.split(rows), y.split(rows), strict=True)
        sums += [torch.dot(p.double().flatten(), q.double().flatten()) for p, q in parts]
    return torch.stack(sums).sum()


def multiplier(square: Tensor, along: Tensor, a_t: Tensor | float) -> float:
    """lambda_t = max{0, (a_t - <grad g, grad L_r>) / ||grad g||^2}: the solution is grad L_r + lambda_t grad g.

    Zero where the forgetting gradient is zero: nothing is left to forget, and no step could change that.

    Args:
        square: ||grad g||^2, by `inner`.
        along: <grad g, grad L_r>, by `inner`.
        a_t: how fast forgetting must go.
    """
    return 0.0 if square == 0 else float(((a_t - along) / square).clamp(min=0))
