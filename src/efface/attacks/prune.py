"""Prune: sets the smallest weights of the edited model to zero, which is common to save memory.

Each matrix and kernel loses the same share, by magnitude and without data. That compression can undo unlearning was
published for language models (see quantise); the transfer to diffusion models is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

from ..functional.rounding import prune_weights
from ._lossy import Level, Lossy
from .base import Threat


@final
@dataclass(frozen=True, kw_only=True)
class Prune(Lossy):
    """Prunes the edited model to each sparsity, by magnitude."""

    threat: ClassVar[Threat] = "weights"
    version: ClassVar[str] = "2"
    learns_from_images: ClassVar[bool] = False
    queries: int = 3
    """Number of queries of each row, one at each sparsity (fewer leave out the smallest)."""
    sparsities: tuple[float, ...] = (0.1, 0.3, 0.5)
    """Shares of each tensor that are set to zero."""

    def check_settings(self) -> None:
        if not self.sparsities or not 0 < min(self.sparsities) <= max(self.sparsities) < 1:
            raise ValueError(f"sparsities are shares between 0 and 1, for example 0.3; got {self.sparsities}")

    def list_levels(self) -> Sequence[Level]:
        return [
            (f"{share:.0%} pruned", partial(prune_weights, sparsity=share)) for share in sorted(set(self.sparsities))
        ]
