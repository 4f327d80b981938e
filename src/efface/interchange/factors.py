"""The change of a matrix as a product of two thin ones, and how much of it that product holds.

The best product of rank r, in the Frobenius norm, keeps the r largest singular values (Eckart and Young, 1936).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class Choice:
    """How a dense change is factored: by a rank, the same for all matrices, or by the share of its energy to keep."""

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
        """Whether one was asked for."""
        return self.rank is not None or self.energy is not None


ENERGY = 0.99
"""Share of each matrix's energy that is kept where neither a rank nor an energy was asked for."""


@torch.no_grad()
def factor(delta: Tensor, choice: Choice) -> tuple[Tensor, Tensor]:
    """Down [r, in] and up [out, r], fp32, whose product up @ down is the best of its rank for the change.

    A kernel [out, in, h, w] counts as [out, in * h * w]. The factors share the singular values evenly, so that neither
    overflows at half precision. A rank above the matrix' own is that of the matrix.

    Args:
        delta: the change, of two dimensions or more and not zero.
        choice: rank or energy; where it says neither, `ENERGY`.
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


def choose_rank(squares: Tensor, choice: Choice) -> int:
    """The rank for a matrix with these squared singular values, largest first.

    Values below rounding, a part in 10^7 of the largest, count as none.
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
    """What a file leaves out of an edit's change, as ‖Δ − BA‖ / ‖Δ‖ in the Frobenius norm."""

    total: float
    """Over all weights together, those with no place in the file included."""
    worst: float
    """Of the matrix that lost most, of those that have a place in the file."""
    worst_name: str

    @staticmethod
    def of(sizes: dict[str, float], losses: dict[str, float]) -> Residual:
        """From the squared norm of each weight's change, and of what is left out of it for those in the file."""
        lost = sum(losses.get(name, size) for name, size in sizes.items())
        shares = {name: (losses[name] / sizes[name]) ** 0.5 for name in losses if sizes[name]}
        worst = max(shares, key=lambda name: shares[name], default="")
        whole = sum(sizes.values())
        return Residual((lost / whole) ** 0.5 if whole else 0.0, shares.get(worst, 0.0), worst)
