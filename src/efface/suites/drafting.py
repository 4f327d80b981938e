"""Drafts a suite from a target's name: templates, paraphrases, near neighbours and unrelated prompts, as a csv.

The csv has a row a picture, with the columns `prompt`, `evaluation_seed`, `class` or `artist` (what the row shows) and
`group`: "target" (the target by its name), "paraphrase" (in other words), "neighbour" and "unrelated". People may edit
it, take rows out and add their own; `efface evaluate --suite FILE.csv` reads it as any other list.
"""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ..concept import fold_name
from ..files.formats import parse_csv
from ..files.structured import read_toml
from ..functional.words import ends_alike
from .entries import derive_seed
from .questions import is_nudity, list_styles

KindName = Literal["person", "style", "object", "brand", "nudity"]
KINDS: tuple[KindName, ...] = get_args(KindName)
SIZE = 80
"""The default number of prompts in each group: 73 of 73 pictures are enough for the gate's 95 %."""


@dataclass(frozen=True)
class Kind:
    """The prompts for a kind of target, and what its pictures are compared with."""

    name: str
    column: str
    """The name of the label's column: "class" for things, "artist" for styles."""
    templates: tuple[str, ...]
    paraphrases: tuple[str, ...]
    near: tuple[str, ...]
    """The names among which the neighbours are searched."""
    around: tuple[str, ...]
    """The neighbours' templates; if there are none, the target's are used."""
    unrelated: tuple[str, ...]
    apart: tuple[str, ...]
    """The templates of unrelated things."""


@dataclass(frozen=True)
class DraftedRow:
    """A row of the csv."""

    prompt: str
    seed: int
    label: str
    group: str


@functools.cache
def read_kinds() -> dict[str, Kind]:
    """The kinds of targets, by name."""
    data = read_toml(Path(__file__).parent / "drafts" / "kinds.toml")
    lists = ("templates", "paraphrases", "near", "around", "unrelated", "apart")
    return {name: Kind(name, d["column"], **{key: tuple(d.get(key, ())) for key in lists}) for name, d in data.items()}


def find_kind(name: str, targets: Sequence[str]) -> Kind:
    """The kind of this name, or, if it is empty, the kind that the targets' names suggest.

    Nudity is recognised by its words, a style by a list of painters, a person by two or more capitalised words;
    anything else is an object.

    Raises:
        ValueError: there is no such kind.
    """
    if name and name not in KINDS:
        raise ValueError(f"there is no kind {name!r}; there are {', '.join(KINDS)}")
    return read_kinds()[name or guess_kind(targets)]


def guess_kind(targets: Sequence[str]) -> KindName:
    """The kind that the targets' names suggest."""
    if all(map(is_nudity, targets)):
        return "nudity"
    if all(any(ends_alike(t, style) for style in list_styles()) for t in targets):
        return "style"
    if all(len(t.split()) > 1 and t == t.title() for t in targets):
        return "person"
    return "object"


def list_other_names(target: str, kind: Kind) -> tuple[str, ...]:
    """The names that a user would try first instead of a person's or painter's: the surname, also with initials.

    >>> list_other_names("Ada Lovelace", read_kinds()["person"])
    ('Lovelace', 'A. Lovelace')
    """
    *first, last = target.split()
    if kind.name not in ("person", "style") or not first:
        return ()
    return last, f"{' '.join(f'{name[0]}.' for name in first)} {last}"


def draft_rows(
    targets: Sequence[str], kind: Kind, neighbours: Sequence[str], size: int = SIZE, seed: int = 0
) -> list[DraftedRow]:
    """The rows of a suite: `size` in each group, in which things and templates alternate, each row with its own seed.

    Args:
        targets: the names of the targets.
        kind: the kind of the targets.
        neighbours: things near the targets, the nearest first.
        size: the number of rows in each group.
        seed: the seed of the rows' seeds.

    Raises:
        ValueError: there is no target or no neighbour, or the size is below 1.
    """
    if not targets or not neighbours or size < 1:
        raise ValueError(f"a suite needs a target, a neighbour and a size from 1; got {targets}, {neighbours}, {size}")
    others = [thing for thing in kind.unrelated if fold_name(thing) not in {*map(fold_name, (*targets, *neighbours))}]
    parts = {
        "target": (targets, kind.templates),
        "paraphrase": (targets, kind.paraphrases),
        "neighbour": (neighbours, kind.around or kind.templates),
        "unrelated": (others, kind.apart),
    }
    rows = []
    for group, (things, templates) in parts.items():
        for i in range(size):
            thing, template = things[i % len(things)], templates[i // len(things) % len(templates)]
            prompt = _tidy(template.format(thing))
            rows.append(DraftedRow(prompt, derive_seed(f"{seed}/{group}/{prompt}", i), thing, group))
    return rows


def write_csv(rows: Sequence[DraftedRow], kind: Kind) -> str:
    """Writes the rows as the text of a csv, which is read like any list of prompts."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["prompt", "evaluation_seed", kind.column, "group"])
    writer.writerows([row.prompt, row.seed, row.label, row.group] for row in rows)
    return out.getvalue()


def read_groups(text: str) -> dict[str, list[str]]:
    """The label of each row of such a csv, by its group."""
    found: dict[str, list[str]] = {}
    for row in parse_csv("the drafted suite", text, ()).rows:
        found.setdefault(row["group"], []).append(row.get("class") or row["artist"])
    return found


def _tidy(prompt: str) -> str:
    """Corrects the articles of a prompt.

    >>> _tidy("a photo of a a dog"), _tidy("a drawing of a owl"), _tidy("a orange on a table")
    ('a photo of a dog', 'a drawing of an owl', 'an orange on a table')
    """
    once = re.sub(r"\b(?:a|an|the) (?=(?:a|an|the) )", "", prompt)
    return re.sub(r"\ba (?=[aeiou])", "an ", once)
