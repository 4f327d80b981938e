"""Prune: the smallest of the edited weights set to zero, as they are to save memory; does the concept come back?

Each matrix and kernel loses the same share, by magnitude and without data. The published remark that erasing and
compressing interfere is for language models (see quantise); for diffusion models it is our transfer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..functional.rounding import pruned
from ..select import select
from ..suites import Row
from .base import Arena, Attack, Shot, Shots, Threat


@final
@dataclass(frozen=True, kw_only=True)
class Prune(Attack):
    """Prunes the edited weights to each sparsity."""

    threat: ClassVar[Threat] = "weights"
    version: ClassVar[str] = "1"
    spends: ClassVar[tuple[str, ...]] = ()
    brings: ClassVar[bool] = False
    queries: int = 3
    """Pictures drawn and judged for each row: one at each sparsity (fewer leave out the smallest)."""
    sparsities: tuple[float, ...] = (0.1, 0.3, 0.5)
    """Shares of each tensor that are set to zero."""
    weights: str = r"^(?!.*\.embeddings\.).*\.weight$"
    """Which weights are pruned: subsets or regular expressions, comma-separated; vectors never are."""

    def __post_init__(self) -> None:
        if not self.sparsities or not 0 < min(self.sparsities) <= max(self.sparsities) < 1:
            raise ValueError(f"sparsities are shares between 0 and 1, for example 0.3; got {self.sparsities}")

    def check(self, arena: Arena) -> None:
        arena.edited_weights()
        select(arena.model.weights, self.weights)

    def shots(self, arena: Arena, rows: Sequence[Row]) -> Shots:
        now = arena.model.weights
        chosen = [name for name in select(now, self.weights) if now[name].dim() >= 2]
        for sparsity in sorted(set(self.sparsities))[-self.queries :]:
            with arena.model.bound({name: pruned(now[name].detach(), sparsity) for name in chosen}):
                yield [Shot(row.prompt, row.seed, note=f"{sparsity:.0%} pruned") for row in rows]
