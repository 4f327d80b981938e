"""The conditions of attacks: the erased concept, and two controls that say what a low success rate means.

In the controls the concept's name is removed from the prompts: a neutral word replaces it ("thing"; for a style,
"plain"), and a prompt without its name becomes "a picture of a thing". The untouched base shows whether an attack
brings back a concept that is certainly there; a kept concept of the edited model, whether this model can be attacked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..attacks.base import NEUTRAL, put
from ..models.base import Model
from ..records.attacks import Condition
from ..suites.make import build_own_world
from ..suites.spec import Row, Suite, SuiteSpec
from ..suites.world import World

KEPT = 2
"""Number of kept concepts that the control attacks."""


class NothingToAttack(ValueError):
    """The untouched base never shows the concept to bring back."""


class CannotAttack(ValueError):
    """An attack that can't be made on this edit or model, such as one by gradients on a guide."""


@dataclass(frozen=True)
class Campaign:
    """The size of a campaign of attacks."""

    rows: int = 50
    """Number of prompts of each erased concept."""
    controls: int = 16
    """Number of prompts in each control."""
    group: str = ""
    """The suite's group that is attacked; where this is empty, the first one whose concepts must be gone."""
    worst_case: bool = False
    """Whether each attack is made only on rows that no attack before it broke, which finds the worst case sooner."""
    skip: bool = False
    """Whether attacks that can't be made on this model or edit are left out, with an alarm, if others can be made."""
    seed: int = 0
    """Seed of everything random in the attacks."""


@dataclass(frozen=True)
class ConceptAliases:
    """Other names and descriptions of a concept."""

    synonyms: tuple[str, ...] = ()
    """Other names, in any language."""
    paraphrases: tuple[str, ...] = ()
    """Descriptions without a name of it."""


@dataclass(frozen=True)
class AttackTarget:
    """One concept that is attacked in one model."""

    condition: Condition
    concept: str
    asked: tuple[Row, ...]
    """The rows as the suite has them."""
    rows: tuple[Row, ...]
    """The rows as they are attacked."""
    placeholder: str
    """The word that replaces the concept's name in `rows`, where it was removed."""
    aliases: ConceptAliases

    @property
    def asks(self) -> str:
        return self.rows[0].asks


def find_aliases(world: World | None, suite: SuiteSpec | None = None) -> dict[str, ConceptAliases]:
    """The other names of things, from a model's world, or otherwise from the suite's."""
    if world is None:
        world = build_own_world(suite) if suite and "world" in suite.brings else None
    things = world.things if world else ()
    return {
        t.name: ConceptAliases((*t.synonyms, *t.translations), (t.description,) * bool(t.description)) for t in things
    }


def build_targets(
    suite: Suite, aliases: Mapping[str, ConceptAliases], rows: int, controls: int, group: str = "", words: bool = True
) -> list[AttackTarget]:
    """The erased concepts under the edit, then kept ones, then the erased ones on the untouched base.

    Args:
        suite: the suite.
        aliases: other names of concepts, by concept.
        rows: the largest number of rows of each erased concept.
        controls: the largest number of rows in each control, spread over its concepts.
        group: the group that is attacked, instead of the first whose concepts must be gone.
        words: whether the model reads words beside the names of classes; if not, the name is replaced by "".

    Raises:
        ValueError: the suite or the group has no concept that must be gone, or `rows` or `controls` is below 1.
    """
    if rows < 1 or controls < 1:
        raise ValueError(f"attacks need at least 1 row and 1 row in the controls; got {rows} and {controls}")
    targets = _find_first_group(suite, "erase", of=group)
    if not targets:
        there = dict.fromkeys(r.group for r in suite.rows if r.role == "erase")
        what = f"in group {group!r}; its groups to attack are {', '.join(there) or 'none'}" if group else "to attack"
        raise ValueError(f"suite {suite.spec.name} has no row of a concept that must be gone {what}")
    kept = [r for r in _find_first_group(suite, "keep", targets[0].asks) if not r.second]
    by_target, by_kept = _group_by_concept(targets), dict(list(_group_by_concept(kept).items())[:KEPT])
    share = [-(-controls // len(part)) if part else 0 for part in (by_target, by_kept)]
    found = [
        AttackTarget("target", c, r[:rows], r[:rows], "", aliases.get(c, ConceptAliases()))
        for c, r in by_target.items()
    ]
    found += [
        _build_control("control-kept", c, r[: share[1]], aliases.get(c, ConceptAliases()), words)
        for c, r in by_kept.items()
    ]
    share[0] = min(share[0], rows)
    return [
        *found,
        *(
            _build_control("control-base", c, r[: share[0]], aliases.get(c, ConceptAliases()), words)
            for c, r in by_target.items()
        ),
    ]


def _find_first_group(suite: Suite, role: str, asks: str = "", of: str = "") -> list[Row]:
    """The rows of the first group that has rows of this role and kind of concept, or of the named group."""
    kinds = (asks,) if asks else tuple(NEUTRAL)
    for group in suite.spec.groups:
        rows = [r for r in suite.select_group(group.name) if r.role == role and r.asks in kinds]
        if rows and of in ("", group.name):
            return rows
    return []


def _group_by_concept(rows: Sequence[Row]) -> dict[str, tuple[Row, ...]]:
    found: dict[str, tuple[Row, ...]] = {}
    for row in rows:
        found[row.concept] = (*found.get(row.concept, ()), row)
    return found


def _build_control(
    condition: Condition, concept: str, rows: tuple[Row, ...], aliases: ConceptAliases, words: bool
) -> AttackTarget:
    if not words:
        return AttackTarget(
            condition, concept, rows, tuple(dataclasses.replace(row, prompt="") for row in rows), "", aliases
        )
    placeholder = NEUTRAL[rows[0].asks]
    names = (concept, *rows[0].counts, *aliases.synonyms)
    return AttackTarget(
        condition, concept, rows, tuple(remove_names(row, names, placeholder) for row in rows), placeholder, aliases
    )


def remove_names(row: Row, names: Sequence[str], word: str) -> Row:
    """The row with each of the names in its prompt replaced by a neutral word."""
    return dataclasses.replace(row, prompt=put(row.prompt, names, word) or f"a picture of a {word}")


def list_one_token_words(model: Model) -> tuple[str, ...]:
    """Words that are one token each in the model's tokenizer, in its order, which is that of frequency.

    Where the tokenizer can't be read, they are the model's vocabulary.
    """
    try:
        end = model.tokenize([""])[0, 1]
    except ValueError:
        return tuple(model.list_words(50_000))
    count = len(model.get_embedding_table())
    spelled = (model.detokenize(torch.tensor([i])).strip() for i in range(count))
    words = list(dict.fromkeys(w for w in spelled if len(w) > 2 and w.isascii() and w.isalpha()))
    alone = model.tokenize(words)[:, 2] == end
    return tuple(word for word, single in zip(words, alone.tolist(), strict=True) if single)
