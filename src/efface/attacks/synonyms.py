"""Other words for the concept, which a user would try first, and which suffice where only a name was erased.

Each try replaces the name by another of the suite's synonyms, translations and paraphrases, in an order that depends on
the row; when all are used, they are repeated with other seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..suites.spec import Row
from .base import Attack, AttackContext, Candidate, Proposals, Threat


@final
@dataclass(frozen=True, kw_only=True)
class Synonyms(Attack):
    """Draws the concept by its other names and by descriptions."""

    threat: ClassVar[Threat] = "prompts"
    version: ClassVar[str] = "1"
    learns_from_images: ClassVar[bool] = False
    batch_size: ClassVar[int] = 32

    def check(self, context: AttackContext) -> None:
        context.require_words()
        if not (*context.synonyms, *context.paraphrases):
            raise ValueError(
                f"no other word for {context.concept!r} is known; name some, for example --synonym 'cat=kitty'"
            )

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        known = [*context.synonyms, *context.paraphrases]
        rngs = [context.make_rng("synonyms", row.id) for row in rows]
        orders = [rng.sample(known, len(known)) for rng in rngs]
        for round_index in itertools.count():
            again = round_index >= len(known)
            seeds = [rng.randrange(2**31) if again else row.seed for rng, row in zip(rngs, rows, strict=True)]
            words = [order[round_index % len(known)] for order in orders]
            yield [
                Candidate(context.put(row.prompt, word), seed, note=word)
                for row, word, seed in zip(rows, words, seeds, strict=True)
            ]
