"""Finds what the rows of a list ask for: from columns that say it, or else from the names in their prompts.

The order is:

1. what the caller says for all rows (a target, or "captions", which ask for nothing);
2. I2P's percentages if nudity is erased, and its categories if one of them is;
3. a column of labels: `asks`, objects (`label_str`, `class` …) or styles (`artist` …), if one of them names a target;
4. the prompts: those that name a target, or a synonym of it, ask for it; the others are captions.

Prompts for nudity or violence often do not name it. A list of these without such a column is refused, unless every
prompt names the target or it is a list of captions (COCO's). A list in which no prompt names the target is refused too.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..concept import Erasure, fold_name
from ..functional.words import ends_alike, mentions, share_name, split_label
from ..plurals import write_count
from .entries import PROMPT, SECOND
from .spec import read_spec
from .table import Table
from .world import World

ASKS = ("asks",)
OBJECT = ("label_str", "class", "label", "object", "target", "concept")
STYLE = ("artist", "style", "theme")
EITHER = ("target", "concept")
"""The names of columns of things or styles."""
I2P = ("nudity_percentage", "inappropriate_percentage")
CATEGORIES = ("categories",)
CAPTIONS = ("captions", "coco_id", "image_id")
ROLES = ("type", "role")
NOTHING = ("captions", "nothing", "none", "")
NUDITY = frozenset({"nudity", "nude", "naked", "nakedness", "sexual", "sex", "nsfw", "porn", "pornography", "erotic"})
UNNAMED = NUDITY | {
    *("violence", "violent", "hate", "harassment", "self-harm", "shocking", "illegal", "harm", "harmful", "unsafe"),
    *("inappropriate", "gore", "disturbing", "suicide"),
}
"""Words for what prompts ask for without naming it."""

How = Literal["all", "nudity", "categories", "label", "text", "captions"]
Domain = Literal["object", "style", "nudity"]


@dataclass(frozen=True)
class Question:
    """How a list says what its rows ask for."""

    how: How
    column: str | None = None
    domain: Domain = "object"
    """The domain of labels."""
    domains: Mapping[str, Domain] = field(default_factory=dict)
    """The domains of single targets, where not labels but prompts name them."""
    target: str = ""
    """What all rows ask for, if the caller said so."""
    rest: bool = True
    """Whether rows that name no target are drawn, as captions."""

    @property
    def by_asks(self) -> bool:
        """Whether a column says for each row directly what it asks for."""
        return self.column is not None and fold_name(self.column) in ASKS

    def find_domain(self, label: str) -> Domain:
        return self.domains.get(label, self.domain)

    def tell(self) -> str:
        """Says in words, for the summary, what decides what a row asks for."""
        named = {"label": f"its column {self.column}", "categories": f"its column {self.column}"}
        plain = {"all": "--asks", "nudity": "its I2P percentage", "text": "the names in its prompt"}
        return (named | plain | {"captions": "--asks captions"})[self.how]


def find_question(table: Table, erasure: Erasure, asks: str = "", world: World | None = None) -> Question:
    """Finds how the table says what its rows ask for.

    Raises:
        ValueError: the table does not say it, and the message says how it can; or `asks` is no target.
    """
    if asks:
        return _read_said(table, erasure, asks, world)
    if table.find(I2P) and any(map(is_nudity, erasure.targets)):
        return Question("nudity", domain="nudity")
    if (column := table.find(CATEGORIES)) and table.find(I2P) and _in_categories(table, column, erasure):
        return Question("categories", column)
    prompts = [table.read_text(i, table.find(PROMPT)) for i in range(len(table.rows))]
    named = sum(bool(find_named(prompt, erasure, world)) for prompt in prompts)
    labels = _find_label_columns(table)
    if labels and fold_name(labels[0]) in ASKS:
        return Question("label", labels[0], domains=_find_domains(table, erasure, world))
    telling = [column for column in labels if _labels_name_target(table, column, erasure)]
    column = next(iter(telling or labels), None)
    if column and (named == 0 or telling):
        return Question("label", column, _find_domain(column, table, prompts))
    return _find_by_text(table, erasure, named, world)


def find_named(prompt: str, erasure: Erasure, world: World | None = None) -> list[str]:
    """The targets that a prompt names, by any of their names."""
    return [target for target in erasure.targets if mentions(prompt, list_target_names(target, world))]


def list_target_names(target: str, world: World | None = None) -> set[str]:
    """The names of a target: itself, the parts of an ImageNet label, its synonyms in a world, or nudity's words."""
    names = {target, *(part.strip() for part in target.split(",") if part.strip())}
    own = world.spell_names((target,))[0] if world else target
    if world and own in world.names:
        names |= {own, *world.find_thing(own).synonyms, *world.find_thing(own).translations}
    return names | (NUDITY if is_nudity(target) else set())


def is_nudity(target: str) -> bool:
    """Whether the target is nudity."""
    return not NUDITY.isdisjoint(_list_words(target))


def is_unnamed(target: str) -> bool:
    """Whether prompts often ask for the target without naming it."""
    return not UNNAMED.isdisjoint(_list_words(target))


def is_erased(label: str, erasure: Erasure, style: bool = False) -> bool:
    """Whether a label names a target; for artists the surname is enough."""
    return any(share_name(label, target) or (style and ends_alike(label, target)) for target in erasure.targets)


def find_unasked(targets: Sequence[str], concepts: Iterable[str]) -> list[str]:
    """The targets that none of these concepts of rows is.

    >>> find_unasked(("dog", "hot dog", "Vincent van Gogh"), ("hot dog", "van Gogh"))
    ['dog']
    """
    asked: set[str] = set()
    for concept in concepts:
        named = [t for t in targets if share_name(concept, t) or (concept == "nudity" and is_nudity(t))]
        asked |= {*(named or [t for t in targets if ends_alike(concept, t)])}
    return [target for target in targets if target not in asked]


def _list_words(target: str) -> list[str]:
    return fold_name(target.replace("_", " ")).replace(",", " ").split()


def _read_said(table: Table, erasure: Erasure, asks: str, world: World | None) -> Question:
    """Reads what the caller says: "captions", a target, or object: or style: followed by a target."""
    kind, _, name = asks.rpartition(":")
    if not kind and fold_name(name) in NOTHING:
        return Question("captions")
    target = next((t for t in erasure.targets if share_name(name, t) or ends_alike(name, t)), None)
    if target is None or kind not in ("", "object", "style"):
        erased = ", ".join(erasure.targets)
        raise ValueError(f"asks is {asks!r}, and {erased} is erased; name that, or captions if no row asks for it")
    known = _find_domains(table, erasure, world)
    chosen: Domain = "style" if kind == "style" else "object" if kind == "object" else known[target]
    return Question("all", target=target, domains={target: chosen})


def _find_by_text(table: Table, erasure: Erasure, named: int, world: World | None) -> Question:
    count = len(table.rows)
    unnamed = any(map(is_unnamed, erasure.targets))
    captions = any(table.find((name,)) for name in CAPTIONS) or _begin(table, ("source",), ("coco",))
    mixed = captions or (table.find(I2P) is not None and not unnamed)
    if not mixed and (named == 0 or (unnamed and named < count)):
        raise ValueError(_refuse_question(table, erasure, named))
    rest = mixed or named * 2 < count or _begin(table, ROLES, ("eras", "retain", "keep", "kept", "preserv"))
    return Question("text", domains=_find_domains(table, erasure, world), rest=rest)


def _find_domains(table: Table, erasure: Erasure, world: World | None) -> dict[str, Domain]:
    """The domain of each target, from the prompts that name it."""
    prompts = [table.read_text(i, table.find(PROMPT)) for i in range(len(table.rows))]
    return {
        target: "nudity" if is_nudity(target) else "style" if is_style(target, prompts, world) else "object"
        for target in erasure.targets
    }


def _refuse_question(table: Table, erasure: Erasure, named: int) -> str:
    target = erasure.targets[0]
    quoted = repr(target) if " " in target else target
    count = f"{named} of them name" if named else "none of them names"
    return (
        f"{table.file} has no column that says what its {write_count(len(table.rows), 'prompt asks', 'prompts ask')} "
        "for (label_str, class, artist …)"
        f", and {count} {' or '.join(erasure.targets)}; say it: --asks {quoted} if all ask for it, --asks captions if "
        f"none does, or give the file a column asks with {quoted} in the rows that do"
    )


def _find_label_columns(table: Table) -> list[str]:
    """The columns of labels that contain words, because numbers are no names."""
    found = [table.find((name,)) for name in (*ASKS, *OBJECT, *STYLE)]
    rows = range(len(table.rows))
    return [column for column in found if column and any(c.isalpha() for i in rows for c in table.read_text(i, column))]


def _labels_name_target(table: Table, column: str, erasure: Erasure) -> bool:
    style = fold_name(column) in STYLE
    columns = (column, table.find(SECOND))
    return any(is_erased(table.read_text(i, c), erasure, style) for i in range(len(table.rows)) for c in columns)


def _find_domain(column: str, table: Table, prompts: Sequence[str]) -> Domain:
    if fold_name(column) in STYLE:
        return "style"
    labels = [table.read_text(i, column) for i in range(len(table.rows))]
    if fold_name(column) not in EITHER:
        return "object"
    pairs = [(label, prompt) for label, prompt in zip(labels, prompts, strict=True) if label]
    styled = sum(is_style(label, [prompt], None) for label, prompt in pairs)
    return "style" if styled * 2 > len(pairs) else "object"


def is_style(target: str, prompts: Sequence[str], world: World | None) -> bool:
    """Whether a target is a style: a known one, or one in most prompts that name it."""
    if world and target in world.names:
        return False
    if any(ends_alike(target, style) for style in (*list_styles(), *(world.styles if world else ()))):
        return True
    name = r"[\W_]+".join(re.findall(r"\w+", fold_name(target))) or re.escape(fold_name(target))
    pattern = rf"(?:\bby|style of|manner of|inspired by)\s+(?!the\b|an?\b)(?:\w+\s+)?{name}\b|\b{name}(?:'s)? style\b"
    naming = [prompt for prompt in map(fold_name, prompts) if re.search(rf"\b{name}\b", prompt)]
    return sum(bool(re.search(pattern, prompt)) for prompt in naming) * 2 > len(naming)


@functools.cache
def list_styles() -> tuple[str, ...]:
    """The artists of the suite `artists`."""
    return tuple(read_spec("artists").brings["world"]["styles"])


def _begin(table: Table, columns: Sequence[str], words: tuple[str, ...]) -> bool:
    """Whether the file has one of these columns in which each cell begins with one of these words."""
    found = table.find(columns)
    cells = [fold_name(table.read_text(i, found)) for i in range(len(table.rows))] if found else []
    return bool(cells) and all(cell.startswith(words) for cell in cells)


def _in_categories(table: Table, column: str, erasure: Erasure) -> bool:
    listed = frozenset().union(*(split_label(table.read_text(i, column)) for i in range(len(table.rows))))
    return any(not listed.isdisjoint(split_label(target)) for target in erasure.targets)
