"""Chooses among tokens with a gradient: relaxed choices, their projections, and substitutions by first-order gain.

A gradient g [n, k, d] at k token embeddings gives, for every token v of a table [V, d], the slope of the error towards
it: g . table[v], which is the gradient at the one-hot choice of the embedding. So one-hot vectors are never needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def project_to_simplex(x: Tensor) -> Tensor:
    """The nearest points [..., V] whose numbers are not negative and sum to one, in the last dimension.

    The projection is exact, by sorting: max(x - theta, 0), where theta is such that the result sums to one (Held, Wolfe
    & Crowder, 1974; Duchi et al., ICML 2008).
    """
    ordered = x.double().sort(dim=-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, device=x.device, dtype=torch.double)
    thetas = (ordered.cumsum(dim=-1) - 1) / count
    stay = (ordered > thetas).sum(dim=-1, keepdim=True)
    return (x.double() - thetas.gather(-1, stay - 1)).clamp(min=0).to(x.dtype)


def draw_tokens(weights: Tensor, rngs: Sequence[torch.Generator]) -> Tensor:
    """Draws indices [n, ...] in proportion to weights [n, ..., V], on the CPU, by each row's rng."""
    rows = zip(weights.detach().flatten(1, -2).float().cpu(), rngs, strict=True)
    picks = torch.cat([torch.multinomial(row, 1, generator=rng) for row, rng in rows])
    return picks.reshape(weights.shape[:-1]).to(weights.device)


def find_nearest(x: Tensor, table: Tensor) -> Tensor:
    """The rows [...] of the table [V, d] with the largest cosine to x [..., d]."""
    return (F.normalize(x.float(), dim=-1) @ F.normalize(table.float()).T).argmax(dim=-1)


def find_difference(old: Sequence[int], new: Sequence[int]) -> tuple[range, range]:
    """The ranges in which two sequences of token ids differ, between their common beginning and their common end.

    A token that could belong to both, as in "a a" and "a a a", belongs to the beginning (MACE's alignment).
    """
    least = min(len(old), len(new))
    first = next((i for i in range(least) if old[i] != new[i]), least)
    last = next((i for i in range(least - first) if old[-1 - i] != new[-1 - i]), least - first)
    return range(first, len(old) - last), range(first, len(new) - last)


def spell(ids: Tensor, words: Sequence[str]) -> list[str]:
    """The words of each row's ids [n, k], one after the other."""
    return [" ".join(words[int(v)] for v in row) for row in ids.tolist()]


def compute_slopes(grad: Tensor, table: Tensor) -> Tensor:
    """The slopes of the error [n, k, V] towards each token of the table [V, d], from grad [n, k, d]."""
    return grad.float() @ table.float().T


def substitute(ids: Tensor, slope: Tensor, top: int, count: int, rngs: Sequence[torch.Generator]) -> Tensor:
    """`count` variants [n, count, k] of ids [n, k], each with one token replaced by one of the `top` most promising.

    To first order a change at position j from token u to v lowers the error by slope[j, u] - slope[j, v], so the best v
    are those with the smallest slope [n, k, V]; infinite ones are never chosen (HotFlip, Ebrahimi et al., arXiv
    1712.06751; GCG, Zou et al., arXiv 2307.15043). The positions take turns; one of the `top` is drawn on the CPU, by
    each row's rng.
    """
    n, k = ids.shape
    open_tokens = int(slope.isfinite().sum(dim=-1).min())
    best = slope.topk(min(top, open_tokens), dim=-1, largest=False).indices
    places = torch.arange(count, device=ids.device).remainder(k).expand(n, count)
    picks = torch.stack([torch.randint(best.shape[-1], (count,), generator=rng) for rng in rngs]).to(ids.device)
    tokens = best[torch.arange(n, device=ids.device)[:, None], places, picks]
    return ids[:, None].repeat(1, count, 1).scatter(2, places[..., None], tokens[..., None])
