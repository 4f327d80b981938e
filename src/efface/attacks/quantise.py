"""Quantise: rounds the weights of the edited model to few bits, which is common for small devices.

Every matrix and kernel is rounded symmetrically with one scale for each output channel, which needs no data. An edit of
many small changes may be lost (Zhang et al., ICLR 2025, arXiv 2410.16454, for unlearning in language models); the
transfer to diffusion models is ours. Embedding tables, biases and norms stay, as is usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

from ..functional.rounding import round_weights
from ._lossy import Level, Lossy
from .base import Threat


@final
@dataclass(frozen=True, kw_only=True)
class Quantise(Lossy):
    """Rounds the edited model's weights to each number of bits."""

    threat: ClassVar[Threat] = "weights"
    version: ClassVar[str] = "2"
    learns_from_images: ClassVar[bool] = False
    queries: int = 2
    """Number of queries of each row, one at each number of bits (fewer leave out the most bits)."""
    bits: tuple[int, ...] = (8, 4)
    """Bits of a rounded weight."""

    def check_settings(self) -> None:
        if not self.bits or min(self.bits) < 2:
            raise ValueError(f"bits are some of 2 and more, for example 8 and 4; got {self.bits}")

    def list_levels(self) -> Sequence[Level]:
        return [(f"int{bits}", partial(round_weights, bits=bits)) for bits in sorted(set(self.bits), reverse=True)]
