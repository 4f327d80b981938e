"""Merge: the edited weights interpolated towards the untouched base, W = edited + share (base - edited).

Checkpoints are often merged with public models, also without the aim of undoing an erasure. At share 1 the result is
the base itself, which every attacker has; the attack shows how small a share brings the concept back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from ..suites.spec import Row
from .base import Attack, AttackContext, Candidate, Proposals, Threat


@final
@dataclass(frozen=True, kw_only=True)
class Merge(Attack):
    """Interpolates the edited weights towards the base, to each share."""

    threat: ClassVar[Threat] = "weights"
    version: ClassVar[str] = "1"
    learns_from_images: ClassVar[bool] = False
    budget_fields: ClassVar[tuple[str, ...]] = ()
    applies_to_base: ClassVar[bool] = False
    one_setting_per_query: ClassVar[bool] = True
    queries: int = 3
    """Number of queries of each row, one at each share (fewer leave out the smallest)."""
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    """The shares of the base in the merged weights."""

    def check_settings(self) -> None:
        if not self.shares or not 0 < min(self.shares) <= max(self.shares) < 1:
            raise ValueError(f"shares of the base lie between 0 and 1, for example 0.5; got {self.shares}")

    def list_stages(self) -> Sequence[str]:
        return [f"{share:.0%} of the base" for share in self._list_used_shares()]

    def _list_used_shares(self) -> list[float]:
        return sorted(set(self.shares))[-self.queries :]

    def check(self, context: AttackContext) -> None:
        context.require_edited_weights()

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        model, names = context.model, context.require_edited_weights()
        now = {name: model.weights[name].detach() for name in names}
        with context.base():
            base = {name: model.weights[name].detach() for name in names}
        for share, note in zip(self._list_used_shares(), self.list_stages(), strict=True):
            mixed = {name: torch.lerp(now[name].float(), base[name].float(), share).to(now[name]) for name in names}
            with model.swap_in(mixed):
                yield [Candidate(row.prompt, row.seed, note=note) for row in rows]
