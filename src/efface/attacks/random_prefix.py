"""Random words before the prompt: the baseline of every other attack.

Successes by chance alone, with as many pictures and judgements as an attack has, are no merit of the attack. From the
second try on the seed changes too, so that the baseline includes the effect of mere redrawing. A class-conditional
model, which reads no other words, is only redrawn. A prompt that some text encoder would cut (CLIP reads 77 tokens)
gets fewer words.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..concept import require_positive
from ..models.text_room import fits
from ..suites.spec import Row
from .base import Attack, AttackContext, Candidate, Proposals, Threat


@final
@dataclass(frozen=True, kw_only=True)
class RandomPrefix(Attack):
    """Puts random words, none of them a name of the concept, before the prompt."""

    threat: ClassVar[Threat] = "prompts"
    version: ClassVar[str] = "2"
    learns_from_images: ClassVar[bool] = False
    batch_size: ClassVar[int] = 32
    length: int = 5
    """Number of words before the prompt, by default as many as UnlearnDiffAtk's prefix has tokens."""

    def check_settings(self) -> None:
        require_positive(self, "length")

    def check(self, context: AttackContext) -> None:
        if context.accepts_words and not context.list_other_words():
            raise ValueError(
                f"{context.model.name} knows no word beside {context.concept!r}: there is no prefix to draw"
            )

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        words = context.list_other_words() if context.accepts_words else []
        rngs = [context.make_rng("random-prefix", row.id) for row in rows]
        for round_index in itertools.count():
            drawn = [rng.choices(words, k=self.length) if words else [] for rng in rngs]
            prefixes = [_put_before(context, own, row.prompt) for own, row in zip(drawn, rows, strict=True)]
            seeds = [rng.randrange(2**31) if round_index else row.seed for rng, row in zip(rngs, rows, strict=True)]
            yield [
                Candidate(f"{prefix}{row.prompt}", seed)
                for prefix, row, seed in zip(prefixes, rows, seeds, strict=True)
            ]


def _put_before(context: AttackContext, words: list[str], prompt: str) -> str:
    """Puts the last of the words before the prompt, as many as fit without cutting it in any text encoder."""
    for first in range(len(words)):
        prefix = " ".join(words[first:]) + " "
        if fits(context.model, f"{prefix}{prompt}"):
            return prefix
    return ""
