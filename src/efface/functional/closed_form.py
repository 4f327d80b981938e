"""Closed-form edits of linear layers that read text: least squares, a null-space constraint.

Rows are embeddings: inputs c [n, d], outputs v* [n, m], a layer's weight W0 [m, d]. Where every output is the base's
own output for another embedding, v* = W0 c*, the edit is W = W0 M with one M [d, d] for all layers: use the identity as
the base and c* as the outputs. Computations and results are in fp64.
"""

from __future__ import annotations

import torch
from torch import Tensor


def solve_least_squares(
    base: Tensor, inputs: Tensor, outputs: Tensor, kept: Tensor, lamb: float, erase: float = 1.0, preserve: float = 1.0
) -> Tensor:
    """W [m, d] that minimises erase |c W' - v*|^2 + preserve |k W' - k W0'|^2 + lamb |W - W0|^2 over all rows.

    UCE's equation 7 (Gandikota et al., WACV 2024, arXiv 2308.14761), W = (lamb W0 + erase sum v* c' + preserve sum
    W0 k k') (lamb I + erase sum c c' + preserve sum k k')^-1; TIME's (Orgad et al., ICCV 2023) where nothing is kept.
    It is written as a change of W0, so that no targets leave W0 to the bit. base [m, d], inputs [n, d], outputs [n, m],
    kept [k, d].
    """
    base, inputs, outputs, kept = base.double(), inputs.double(), outputs.double(), kept.double()
    moment = lamb * _build_identity(base) + erase * inputs.T @ inputs + preserve * kept.T @ kept
    wanted = erase * inputs.T @ (outputs - inputs @ base.T)
    return base + torch.linalg.solve(moment, wanted).T


def solve_shared(
    inputs: Tensor, outputs: Tensor, kept: Tensor, lamb: float, erase: float = 1.0, preserve: float = 1.0
) -> Tensor:
    """The M [d, d] of `solve_least_squares` for all layers: outputs are embeddings c* [n, d], and W = W0 M."""
    return solve_least_squares(_build_identity(inputs), inputs, outputs, kept, lamb, erase, preserve)


def build_null_projector(kept: Tensor, threshold: float) -> Tensor:
    """The projector P [d, d] onto the directions that the kept rows [k, d] do not use.

    A direction is free where the rows' singular value is at most `threshold` times their largest. It is computed from
    the second moment, whose rounding hides thresholds much below 1e-6.
    """
    moment = kept.double().T @ kept.double()
    values, vectors = torch.linalg.eigh(moment)
    free = vectors[:, values <= threshold**2 * values[-1]]
    return free @ free.T


def solve_null_space(base: Tensor, inputs: Tensor, outputs: Tensor, projector: Tensor, lamb: float) -> Tensor:
    """W = W0 + D P [m, d] that minimises |c (W0 + D P)' - v*|^2 + lamb |D P|^2 over all rows, P the projector.

    With z = P c: D P = sum (v* - W0 c) z' (sum z z' + lamb I)^-1. Rows that P maps to zero keep their outputs. Shapes
    are as in `solve_least_squares`.
    """
    base, inputs, outputs, projector = base.double(), inputs.double(), outputs.double(), projector.double()
    seen = inputs @ projector
    moment = lamb * _build_identity(base) + seen.T @ seen
    return base + torch.linalg.solve(moment, seen.T @ (outputs - inputs @ base.T)).T @ projector


def _build_identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[1], dtype=torch.double, device=like.device)
