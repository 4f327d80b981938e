"""Choosing one of many with a gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel_softmax(logits: Tensor, temperature: float, hard: bool, rng: torch.Generator) -> Tensor:
    """Weights [n] of a Gumbel-Softmax choice among logits [n] (Jang et al., arXiv 1611.01144).

    `hard` gives the one-hot argmax with the soft weights' gradient (straight-through). The noise is drawn on the CPU
    from `rng`, with EAP's 1e-10 guards.
    """
    if temperature <= 0:
        raise ValueError(f"the temperature must be positive, got {temperature}")
    u = torch.rand(logits.shape, generator=rng)
    g = -torch.log(-torch.log(u + 1e-10) + 1e-10)
    soft = torch.softmax((logits + g.to(logits)) / temperature, dim=-1)
    if not hard:
        return soft
    one_hot = torch.zeros_like(soft).scatter(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
    return one_hot + (soft - soft.detach())
