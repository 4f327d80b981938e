"""The parts of a suite: its rows, and the content of its TOML file."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..catalog import SUITES, did_you_mean
from ..files.structured import read_toml, refusing
from ..plurals import write_count

if TYPE_CHECKING:
    from .summary import ListSummary


@dataclass(frozen=True)
class Row:
    """One picture to draw, and the question about it."""

    id: str
    prompt: str
    seed: int
    group: str
    role: str
    """"erase" where the concept must not be seen, "keep" where it must."""
    asks: str
    """The question of its judges: "object", "style" or "nudity"; "match" (the prompt) for a row without a label."""
    concept: str
    """The thing or style that the row is about. Rows of one concept are not independent evidence."""
    counts: tuple[str, ...]
    """The labels that count as showing it."""
    thing: str = ""
    style: str = ""
    background: str = ""
    second: str = ""
    """The other thing in the picture, where two are named."""
    guidance: float | None = None
    """The guidance of a published row; None means the evaluation's own."""


@dataclass(frozen=True)
class GroupSpec:
    """A group of rows."""

    name: str
    of: str
    """What its rows show: "targets", "near", "siblings", "seen", "unseen", "styles", or "labels" of a file."""
    role: str
    asks: str
    size: int
    """The number of its pictures, in all or for each of its concepts."""
    title: str
    each: bool = False
    """Whether the size is for each concept."""
    words: str = "name"
    """The words for its things: "name", "synonyms", "translations" or "description"."""
    second: str = ""
    """The things beside them, in rows of two things."""
    counts: str = "own"
    """The labels that count as showing the concept: its "own" name, or "any" of the targets."""


@dataclass(frozen=True)
class SuiteSpec:
    """The content of a suite's TOML file."""

    name: str
    version: str
    licence: str
    source: str
    about: str
    targets: str
    """What can be erased: "things", "styles", "unsafe" things, or the "labels" of a file."""
    groups: tuple[GroupSpec, ...] = ()
    templates: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict, repr=False)
    brings: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    """Further content of its TOML file: a world, pairs of things, or the place of a file on the hub."""


@dataclass(frozen=True)
class Suite:
    """A suite for one erasure: its rows, in the order in which they are drawn."""

    spec: SuiteSpec
    """Its groups are those that have rows for this erasure, also those of which none were asked for."""
    targets: tuple[str, ...]
    rows: tuple[Row, ...]
    summary: "ListSummary | None" = None
    """How a file was read, if the rows are from one."""

    def select_group(self, name: str) -> tuple[Row, ...]:
        return tuple(r for r in self.rows if r.group == name)

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label that its rows count or name, among which a judge without its own labels chooses."""
        named = (n for r in self.rows if r.asks in ("object", "style") for n in (*r.counts, r.second) if n)
        return tuple(dict.fromkeys(named))


def list_names() -> list[str]:
    """The names of all suites."""
    return SUITES.list_names()


def read_spec(name: str) -> SuiteSpec:
    """Reads a suite's TOML file."""
    if not SUITES.holds(name):
        raise ValueError(f"there is no suite {name!r}, nor such a file{did_you_mean(name, list_names())}")
    file = SUITES.find_entry(name).file
    data = read_toml(file)
    with refusing(file, "no suite"):
        groups = tuple(GroupSpec(**g) for g in data.pop("groups", ()))
        own = {f.name for f in dataclasses.fields(SuiteSpec)}
        facts = {key: value for key, value in data.items() if key in own}
        return SuiteSpec(**facts, groups=groups, brings={k: v for k, v in data.items() if k not in own})


def describe() -> list[dict[str, str]]:
    """Name, version, licence and purpose of every suite."""
    return [describe_one(name) for name in list_names()]


def describe_one(name: str) -> dict[str, str]:
    """Name, version, licence and purpose of a suite."""
    spec = read_spec(name)
    return {field: getattr(spec, field) for field in ("name", "version", "licence", "source", "about")}


def choose_groups(
    suite: SuiteSpec, only: Sequence[str], per_group: int | None, sizes: Mapping[str, int]
) -> tuple[GroupSpec, ...]:
    """The groups to make, each with its size; raises ValueError for an unknown name, or a size below 1."""
    known = [g.name for g in suite.groups]
    for group in (*only, *sizes):
        if group not in known:
            raise ValueError(f"suite {suite.name} has no group {group!r}; its groups are {', '.join(known)}")
    out = []
    for group in suite.groups:
        if only and group.name not in only:
            continue
        size = sizes.get(group.name, group.size if per_group is None else per_group)
        if size < 1:
            raise ValueError(f"group {group.name} was given {write_count(size, 'picture')}; it needs at least 1")
        out.append(dataclasses.replace(group, size=size))
    return tuple(out)
