"""Character-level perturbations: misspells the concept's name, so that a reader still understands other tokens.

Two kinds of change alternate. Within the name, letters are dropped, doubled, exchanged with their neighbours or
replaced by similar ones, and the name is split, which passes a filter of words. At its edges, punctuation is added: the
tokenizer then keeps the name whole, but among other tokens, which an erasure of some prompts may not cover. A text
encoder that never read misspellings, such as the embedded model's, understands only the second kind. The tries of a row
are all different; names with one change come before those with two. From the second try on the seed changes too, as it
does for the random prefixes with which the attack is compared.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..suites.spec import Row
from .base import Attack, AttackContext, Candidate, Proposals, Threat

ALIKE = {"a": "@4", "e": "3", "g": "9", "i": "1l", "l": "1", "o": "0", "s": "5$", "t": "7", "u": "v", "z": "2"}
BREAKS = " -.'"
EDGES = ("{}.", "{},", "{}!", "{}?", "{}_", "#{}", "-{}-", "({})", "[{}]", "*{}*", "'{}'", '"{}"', "_{}_", "...{}...")


@final
@dataclass(frozen=True, kw_only=True)
class Characters(Attack):
    """Misspells the concept's name in many ways."""

    threat: ClassVar[Threat] = "prompts"
    version: ClassVar[str] = "2"
    learns_from_images: ClassVar[bool] = False
    batch_size: ClassVar[int] = 32

    def check(self, context: AttackContext) -> None:
        context.require_words()

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        rngs = [context.make_rng("characters", row.id) for row in rows]
        spellings = [perturb(context.concept, self.queries, rng) for rng in rngs]
        for round_index in itertools.count():
            seeds = [rng.randrange(2**31) if round_index else row.seed for rng, row in zip(rngs, rows, strict=True)]
            tries = [each[round_index] if round_index < len(each) else None for each in spellings]
            yield [
                Candidate(context.put(row.prompt, name), seed, note=name) if name else None
                for row, name, seed in zip(rows, tries, seeds, strict=True)
            ]


def perturb(name: str, count: int, rng: random.Random) -> list[str]:
    """At most `count` different perturbations, alternately at the edges and within the name, finally only within."""
    edges = [sign.format(name) for sign in rng.sample(EDGES, len(EDGES))]
    within = misspell(name, count, rng)
    return [each for pair in itertools.zip_longest(edges, within) for each in pair if each][:count]


def misspell(name: str, count: int, rng: random.Random) -> list[str]:
    """At most `count` different misspellings, in random order: with one change first, then with two."""
    once = list(dict.fromkeys(change_once(name)))
    rng.shuffle(once)
    if len(once) >= count:
        return once[:count]
    twice = [other for each in once for other in change_once(each)]
    rng.shuffle(twice)
    return [each for each in dict.fromkeys([*once, *twice]) if each != name][:count]


def change_once(name: str) -> Iterator[str]:
    """The name with one change, at every position."""
    for i, letter in enumerate(name):
        if not letter.isalnum():
            continue
        rest = name[i + 1 :]
        yield name[:i] + letter * 2 + rest
        if len(name) > 3:
            yield name[:i] + rest
        if rest[:1].isalnum() and rest[0] != letter:
            yield name[:i] + rest[0] + letter + rest[1:]
        for like in ALIKE.get(letter.casefold(), ""):
            yield name[:i] + like + rest
        if i and name[i - 1].isalnum():
            yield from (name[:i] + gap + letter + rest for gap in BREAKS)
