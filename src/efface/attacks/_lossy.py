"""The base of quantise and prune: the edited model is compressed without data to several levels, and each row is
drawn."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..suites.spec import Row
from ..training.subsets import select
from .base import Attack, AttackContext, Candidate, Proposals

TABLES = r".*\.(embeddings|shared|embed_tokens|relative_attention_bias)\.|.*\.class_embedding\.weight$"
"""The names of embedding tables: CLIP's, T5's, those of language models, and of classes."""
Level = tuple[str, Callable[[Tensor], Tensor]]
"""The name of a level of compression, and the function that compresses one weight to it."""


@dataclass(frozen=True, kw_only=True)
class Lossy(Attack):
    """Compresses every matrix and kernel of the edited model to each level, and draws the rows as they are."""

    budget_fields: ClassVar[tuple[str, ...]] = ()
    applies_to_base: ClassVar[bool] = False
    one_setting_per_query: ClassVar[bool] = True
    weights: str = rf"^(?!{TABLES}).*\.weight$"
    """Which weights are compressed: subsets or regular expressions, comma-separated; by default all but embedding
    tables. Vectors are never compressed."""

    @abstractmethod
    def list_levels(self) -> Sequence[Level]:
        """The levels, from the mildest to the strongest; the last `queries` of them are used."""

    def list_stages(self) -> Sequence[str]:
        return [note for note, _ in self._list_used_levels()]

    def _list_used_levels(self) -> Sequence[Level]:
        return self.list_levels()[-self.queries :]

    def check(self, context: AttackContext) -> None:
        context.require_edited_weights()
        select(context.model.weights, self.weights)

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        now = context.model.weights
        chosen = [name for name in select(now, self.weights) if now[name].dim() >= 2]
        for note, compress in self._list_used_levels():
            with context.model.swap_in({name: compress(now[name].detach()) for name in chosen}):
                yield [Candidate(row.prompt, row.seed, note=note) for row in rows]
