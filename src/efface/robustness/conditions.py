"""Where attacks are made: on the erased concept, and on the two controls that say what a low success rate is worth.

In the controls the concept's name is removed from the prompts: a neutral word stands where it was ("thing"; for a
style, "plain"), and a prompt that has no name of it becomes "a picture of a thing". The untouched base shows whether an
attack brings a concept that is surely there; a kept concept of the edited model, whether this model can be attacked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..attacks.base import NEUTRAL, put
from ..models.base import Model
from ..records.attacks import Condition
from ..suites.make import own_world
from ..suites.spec import Row, Suite, SuiteSpec
from ..suites.world import World

KEPT = 2
"""Kept concepts that the control attacks."""


class NothingToAttack(ValueError):
    """The untouched base never shows what is to be brought back."""


@dataclass(frozen=True)
class Campaign:
    """How much is attacked."""

    rows: int = 50
    """Prompts of each erased concept."""
    controls: int = 16
    """Prompts in each control."""
    group: str = ""
    """The suite's group that is attacked; its first that must be gone where it is empty."""
    worst_case: bool = False
    """Make each attack only on rows that none before it broke: the worst case, sooner, without a table by attack."""
    skip: bool = False
    """Leave out, with an alarm, what can't be made on this model or edit, where something else can."""
    seed: int = 0
    """Seed of everything random in the attacks."""


@dataclass(frozen=True)
class ConceptAliases:
    """What may be known of a concept beside its name."""

    synonyms: tuple[str, ...] = ()
    """Other names, in whatever language."""
    paraphrases: tuple[str, ...] = ()
    """Descriptions that hold no name of it."""


@dataclass(frozen=True)
class AttackTarget:
    """One concept attacked in one model."""

    condition: Condition
    concept: str
    asked: tuple[Row, ...]
    """The rows as the suite has them."""
    rows: tuple[Row, ...]
    """The rows as they are attacked."""
    placeholder: str
    """What stands for the concept's name in them, where it was removed."""
    aliases: ConceptAliases

    @property
    def asks(self) -> str:
        return self.rows[0].asks


def find_aliases(world: World | None, suite: SuiteSpec | None = None) -> dict[str, ConceptAliases]:
    """What is known of things: by a model's world, or else by the one that the suite brings."""
    if world is None:
        world = own_world(suite) if suite and "world" in suite.brings else None
    things = world.things if world else ()
    return {
        t.name: ConceptAliases((*t.synonyms, *t.translations), (t.description,) * bool(t.description)) for t in things
    }


def build_targets(
    suite: Suite, aliases: Mapping[str, ConceptAliases], rows: int, controls: int, group: str = "", words: bool = True
) -> list[AttackTarget]:
    """The erased concepts under the edit, then kept ones, then the erased ones on the untouched base.

    Args:
        rows: of each erased concept, at most.
        controls: of each control, at most, spread over its concepts.
        group: the group that is attacked, instead of the first whose concepts must be gone.
        words: whether the model hears words beside the names of classes; if not, "" stands where the name was removed.

    Raises:
        ValueError: the suite, or that group of it, holds nothing that must be gone; `rows` or `controls` is under 1.
    """
    if rows < 1 or controls < 1:
        raise ValueError(f"attacks need at least 1 row and 1 row in the controls; got {rows} and {controls}")
    targets = _first_group(suite, "erase", of=group)
    if not targets:
        there = dict.fromkeys(r.group for r in suite.rows if r.role == "erase")
        what = f"in group {group!r}; its groups to attack are {', '.join(there) or 'none'}" if group else "to attack"
        raise ValueError(f"suite {suite.spec.name} has no row of a concept that must be gone {what}")
    kept = [r for r in _first_group(suite, "keep", targets[0].asks) if not r.second]
    by_target, by_kept = _by_concept(targets), dict(list(_by_concept(kept).items())[:KEPT])
    share = [-(-controls // len(part)) if part else 0 for part in (by_target, by_kept)]
    found = [
        AttackTarget("target", c, r[:rows], r[:rows], "", aliases.get(c, ConceptAliases()))
        for c, r in by_target.items()
    ]
    found += [
        _control("control-kept", c, r[: share[1]], aliases.get(c, ConceptAliases()), words) for c, r in by_kept.items()
    ]
    share[0] = min(share[0], rows)
    return [
        *found,
        *(
            _control("control-base", c, r[: share[0]], aliases.get(c, ConceptAliases()), words)
            for c, r in by_target.items()
        ),
    ]


def _first_group(suite: Suite, role: str, asks: str = "", of: str = "") -> list[Row]:
    """The rows of the first group that has rows of this role and kind of concept; of one group where that is named."""
    kinds = (asks,) if asks else tuple(NEUTRAL)
    for group in suite.spec.groups:
        rows = [r for r in suite.group(group.name) if r.role == role and r.asks in kinds]
        if rows and of in ("", group.name):
            return rows
    return []


def _by_concept(rows: Sequence[Row]) -> dict[str, tuple[Row, ...]]:
    found: dict[str, tuple[Row, ...]] = {}
    for row in rows:
        found[row.concept] = (*found.get(row.concept, ()), row)
    return found


def _control(
    condition: Condition, concept: str, rows: tuple[Row, ...], aliases: ConceptAliases, words: bool
) -> AttackTarget:
    if not words:
        return AttackTarget(
            condition, concept, rows, tuple(dataclasses.replace(row, prompt="") for row in rows), "", aliases
        )
    placeholder = NEUTRAL[rows[0].asks]
    names = (concept, *rows[0].counts, *aliases.synonyms)
    return AttackTarget(
        condition, concept, rows, tuple(removed(row, names, placeholder) for row in rows), placeholder, aliases
    )


def removed(row: Row, names: Sequence[str], word: str) -> Row:
    """The row with a neutral word in the place of each name in its prompt."""
    return dataclasses.replace(row, prompt=put(row.prompt, names, word) or f"a picture of a {word}")


def one_token_words(model: Model) -> tuple[str, ...]:
    """Words of letters that the model's tokenizer has as one token each, in its order, which is that of frequency.

    The model's vocabulary where its tokens can't be asked for.
    """
    try:
        end = model.tokenize([""])[0, 1]
    except ValueError:
        return tuple(model.vocabulary(50_000))
    count = len(model.embedding_table())
    spelled = (model.detokenize(torch.tensor([i])).strip() for i in range(count))
    words = list(dict.fromkeys(w for w in spelled if len(w) > 2 and w.isascii() and w.isalpha()))
    alone = model.tokenize(words)[:, 2] == end
    return tuple(word for word, single in zip(words, alone.tolist(), strict=True) if single)
