"""Quantise: the edited weights rounded to few bits, as they are for a small device; does the concept come back?

Symmetric rounding of every matrix and kernel with one scale for each output channel, which needs no data. An edit of
many small changes may be lost in it (Zhang et al., ICLR 2025, arXiv 2410.16454, of language models made to forget);
its use on diffusion models is our transfer. Embedding tables, biases and norms stay, as is usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..functional.rounding import rounded
from ..select import select
from ..suites import Row
from .base import Arena, Attack, Shot, Shots, Threat


@final
@dataclass(frozen=True, kw_only=True)
class Quantise(Attack):
    """Rounds the edited weights to each number of bits."""

    threat: ClassVar[Threat] = "weights"
    version: ClassVar[str] = "1"
    spends: ClassVar[tuple[str, ...]] = ()
    brings: ClassVar[bool] = False
    queries: int = 2
    """Pictures drawn and judged for each row: one at each number of bits (fewer leave out the most bits)."""
    bits: tuple[int, ...] = (8, 4)
    """Bits of a rounded weight."""
    weights: str = r"^(?!.*\.embeddings\.).*\.weight$"
    """Which weights are rounded: subsets or regular expressions, comma-separated; vectors never are."""

    def __post_init__(self) -> None:
        if not self.bits or min(self.bits) < 2:
            raise ValueError(f"bits are some of 2 and more, for example 8 and 4; got {self.bits}")

    def check(self, arena: Arena) -> None:
        arena.edited_weights()
        select(arena.model.weights, self.weights)

    def shots(self, arena: Arena, rows: Sequence[Row]) -> Shots:
        now = arena.model.weights
        chosen = [name for name in select(now, self.weights) if now[name].dim() >= 2]
        for bits in sorted(set(self.bits), reverse=True)[-self.queries :]:
            with arena.model.bound({name: rounded(now[name].detach(), bits) for name in chosen}):
                yield [Shot(row.prompt, row.seed, note=f"int{bits}") for row in rows]
