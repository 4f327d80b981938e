"""Chooses one of many with a gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel_softmax(logits: Tensor, temperature: float, hard: bool, rng: torch.Generator, top: int = 0) -> Tensor:
    """Weights [n] of a Gumbel-Softmax choice among logits [n] (Jang et al., arXiv 1611.01144).

    `hard` gives the one-hot argmax with the soft weights' gradient (straight-through). Otherwise the choice is soft;
    with `top` above 0 the weights outside the `top` largest are set to 0 and the rest divided by their sum, and the
    gradient passes through both (AGE's code, arXiv 2501.18950). A hard choice does not use `top`. The noise is drawn
    on the CPU from `rng`, with EAP's 1e-10 guards.
    """
    if top < 0:
        raise ValueError(f"a choice mixes at least 1, or all with top=0; got top={top}")
    if temperature <= 0:
        raise ValueError(f"the temperature must be positive, got {temperature}")
    u = torch.rand(logits.shape, generator=rng)
    g = -torch.log(-torch.log(u + 1e-10) + 1e-10)
    soft = torch.softmax((logits + g.to(logits, non_blocking=True)) / temperature, dim=-1)
    if hard:
        one = torch.zeros_like(soft).scatter(-1, soft.detach().argmax(dim=-1, keepdim=True), 1.0)
        return one + (soft - soft.detach())
    if not 0 < top < len(soft):
        return soft
    largest = soft.detach().topk(top).indices
    few = torch.zeros_like(soft).scatter(-1, largest, soft[largest])
    return few / few.sum()


def estimate_by_score(values: Tensor, chances: Tensor) -> Tensor:
    """Zero, with the gradient of the values' expectation over the choices, by the score function estimator.

    The baseline of each row's value [n] is the mean of the others, which leaves the estimate unbiased (Williams, 1992;
    Kool et al., 2019). It needs at least two rows; the values need no gradient.

    Args:
        values: the value [n] of each row's choice.
        chances: the log-probability [n] of each row's choice, differentiable in the logits.
    """
    if len(values) < 2:
        raise ValueError(f"the score compares a row with the others, so it needs at least 2; got {len(values)}")
    values = values.detach()
    others = (values.sum() - values) / (len(values) - 1)
    return ((values - others) * (chances - chances.detach())).mean()
