"""Factors the change of a matrix into a product of low rank, and measures what the product loses.

The best product of rank r, in the Frobenius norm, keeps the r largest singular values (Eckart and Young, 1936).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class RankChoice:
    """How a dense change is factored: by one rank for all matrices, or by the share of its energy to keep."""

    rank: int | None = None
    energy: float | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.energy is not None:
            raise ValueError(f"--rank {self.rank} and --energy {self.energy:g} say the same thing twice; give one")
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"--rank is at least 1, got {self.rank}")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise ValueError(f"--energy is a share above 0 and at most 1, got {self.energy:g}")

    @property
    def given(self) -> bool:
        """Whether a rank or an energy was asked for."""
        return self.rank is not None or self.energy is not None


ENERGY = 0.99
"""The share of each matrix's energy that is kept by default."""


@torch.no_grad()
def factor(delta: Tensor, choice: RankChoice) -> tuple[Tensor, Tensor]:
    """Down [r, in] and up [out, r], fp32, whose product up @ down is the best of its rank for the change.

    A kernel [out, in, h, w] counts as [out, in * h * w]. Each factor is scaled by the square roots of the singular
    values, so that neither overflows in half precision. A rank above that of the matrix is reduced to it.

    Args:
        delta: the change, of two dimensions or more and not zero.
        choice: the rank or the energy; without either, the energy is `ENERGY`.
    """
    flat = delta.flatten(1).double()
    tall = flat.shape[0] > flat.shape[1]
    matrix = flat.T if tall else flat
    # Eigenvectors of the smaller Gram matrix: left singular vectors, in ascending order of the squared values.
    squares, vectors = torch.linalg.eigh(matrix @ matrix.T)
    squares, vectors = squares.flip(0).clamp(min=0), vectors.flip(1)
    rank = choose_rank(squares, choice)
    left = vectors[:, :rank]
    root = squares[:rank].pow(0.25).clamp(min=torch.finfo(torch.float64).tiny)
    right = (left.T @ matrix) / root[:, None]
    up, down = (right.T, (left * root).T) if tall else (left * root, right)
    return down.float().contiguous(), up.float().contiguous()


def choose_rank(squares: Tensor, choice: RankChoice) -> int:
    """The rank for a matrix with these squared singular values [k], largest first.

    Values below rounding error, 10^-7 of the largest, count as zero.
    """
    real = max(1, int((squares > squares[0] * 1e-14).sum()))
    if choice.rank is not None:
        return min(choice.rank, real)
    share = squares.cumsum(0) / squares.sum()
    wanted = int((share < (ENERGY if choice.energy is None else choice.energy) - 1e-12).sum()) + 1
    return min(wanted, real)


@final
@dataclass(frozen=True)
class Residual:
    """The part of an edit's change that a file leaves out or rounds away, as ‖Δ − BA‖ / ‖Δ‖ in the Frobenius norm."""

    total: float
    """The residual over all weights together, including those that the file can't hold."""
    worst: float
    """The largest residual of a single matrix, among those in the file."""
    worst_name: str

    @staticmethod
    def of(sizes: dict[str, float], losses: dict[str, float]) -> Residual:
        """Computes it from squared norms: of all weights' changes (`sizes`), and of the loss of those in the file."""
        lost = sum(losses.get(name, size) for name, size in sizes.items())
        shares = {name: (losses[name] / sizes[name]) ** 0.5 for name in losses if sizes[name]}
        worst = max(shares, key=lambda name: shares[name], default="")
        whole = sum(sizes.values())
        return Residual((lost / whole) ** 0.5 if whole else 0.0, shares.get(worst, 0.0), worst)

    def to_json(self, name: str) -> dict[str, Any]:
        """The entries of an export's description, under this name."""
        return {name: self.total, f"worst_{name}": self.worst, "worst_weight": self.worst_name}
