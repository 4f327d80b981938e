"""EraseDiff's step: the gradient of the remaining loss, changed until the forgetting loss falls fast enough.

min_th L_r subject to g(th) = L_f(th) - min_phi L_f(phi) <= 0, solved to first order (Wu et al., arXiv 2401.05779, after
BOME, arXiv 2209.08709): delta* = argmin 1/2 ||grad L_r - delta||^2 subject to <grad g, delta> >= a_t.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CHUNK = 2**18
LARGE = 2**24
"""The number of elements of one product on a GPU, where many small products would each cost a launch."""


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Computes the inner product of two gradients, lists of tensors of the same shapes: a scalar in fp64.

    On a CPU the chunks are rows, which are views in any memory format; on a GPU they are many tensors at once.
    """
    if a[0].is_cuda:
        return _sum_by_groups(a, b)
    sums: list[Tensor] = []
    for x, y in (torch.atleast_1d(*pair) for pair in zip(a, b, strict=True)):
        rows = max(1, CHUNK * len(x) // x.numel())
        parts = zip(x.split(rows), y.split(rows), strict=True)
        sums += [torch.dot(p.double().flatten(), q.double().flatten()) for p, q in parts]
    return torch.stack(sums).sum()


def _sum_by_groups(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Computes the same by groups of tensors of up to `LARGE` numbers together; a larger tensor is its own group."""
    sums: list[Tensor] = []
    group: list[tuple[Tensor, Tensor]] = []
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        group.append((x.flatten(), y.flatten()))
        if sum(len(p) for p, _ in group) >= LARGE or i == len(a) - 1:
            one, two = (torch.cat(side).double() for side in zip(*group, strict=True))
            sums.append(torch.dot(one, two))
            group = []
    return torch.stack(sums).sum()


def multiplier(square: float, along: float, a_t: float) -> float:
    """lambda_t = max{0, (a_t - <grad g, grad L_r>) / ||grad g||^2}: the solution is grad L_r + lambda_t grad g.

    It is zero where the forgetting gradient is zero, because no step could change the forgetting loss then.

    Args:
        square: ||grad g||^2, by `inner`.
        along: <grad g, grad L_r>, by `inner`.
        a_t: the rate at which the forgetting loss must fall.
    """
    share = 0.0 if square == 0 else (a_t - along) / square
    return 0.0 if share < 0 else share  # not `max`, which would hide NaN
