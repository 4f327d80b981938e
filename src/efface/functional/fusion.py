"""Fuses several changes of one layer, each made for its own inputs, to one weight (MACE, arXiv 2403.06135)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def fuse(
    base: Tensor, changes: Sequence[Tensor], moments: Sequence[Tensor], kept: Tensor, lamb: float, preserve: float = 1.0
) -> Tensor:
    """W [m, d] that minimises sum_i |c_i (W - W1 - D_i)'|^2 + preserve |k (W - W1)'|^2 + lamb |W - W1|^2, in fp64.

    W = W1 + (sum_i D_i C_i) (lamb I + sum_i C_i + preserve K)^-1 is the closed form of MACE's fusion. It is written as
    a change of `base` W1 [m, d], so that without changes the base stays bit-identical. changes are D_i [m, d]; inputs
    c_i [n, d] and kept rows k enter only by their second moments, C_i = c_i' c_i (`moments`) and K [d, d] (`kept`), so
    that a hundred concepts fit into memory.
    """
    base = base.double()
    eye = torch.eye(base.shape[1], dtype=torch.double, device=base.device)
    wanted, moment = torch.zeros_like(base), lamb * eye + preserve * kept.double()
    for change, seen in zip(changes, moments, strict=True):
        wanted = wanted + change.double() @ seen.double()
        moment = moment + seen.double()
    # The moment is symmetric: X M = B is M X' = B'.
    return base + torch.linalg.solve(moment, wanted.T).T
