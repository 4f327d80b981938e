"""What a suite is: its rows, and what its toml says of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..catalog import SUITES, did_you_mean, hyphened
from ..files.structured import read_toml, refusing

if TYPE_CHECKING:
    from .summary import ListSummary


@dataclass(frozen=True)
class Row:
    """One picture to draw and what is asked of it."""

    id: str
    prompt: str
    seed: int
    group: str
    role: str
    """"erase": the concept must not be seen; "keep": it must."""
    asks: str
    """Which judges answer: "object", "style" or "nudity"; "match" (the prompt) where no label is asked for."""
    concept: str
    """What the row is about: a thing or a style. Rows of one concept are not independent evidence."""
    counts: tuple[str, ...]
    """The labels that count as showing it."""
    thing: str = ""
    style: str = ""
    background: str = ""
    second: str = ""
    """The other thing in the picture, where two are named."""
    guidance: float | None = None
    """Guidance that a published row asks for; the evaluation's own where None."""


@dataclass(frozen=True)
class GroupSpec:
    """A group of rows."""

    name: str
    of: str
    """Whom its rows show: "targets", "near", "siblings", "seen", "unseen", "styles"; "labels" of a file."""
    role: str
    asks: str
    size: int
    """Its pictures, in all or for each of its concepts."""
    title: str
    each: bool = False
    """Whether the size is for each concept."""
    words: str = "name"
    """How its things are called: by "name", "synonyms", "translations" or "description"."""
    second: str = ""
    """Who stands beside them."""
    counts: str = "own"
    """What counts as showing the concept: its "own" name, or "any" of the targets."""


@dataclass(frozen=True)
class SuiteSpec:
    """What a suite's toml says."""

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
    """What else its toml holds: a world of its own, pairs of things, or the place of a file on the hub."""


@dataclass(frozen=True)
class Suite:
    """A suite for one erasure: its rows, in the order in which they are drawn."""

    spec: SuiteSpec
    targets: tuple[str, ...]
    rows: tuple[Row, ...]
    summary: "ListSummary | None" = None
    """How a file was read, where the rows are from one."""

    def group(self, name: str) -> tuple[Row, ...]:
        return tuple(r for r in self.rows if r.group == name)

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label that its rows count or name: what a judge without labels of its own may choose among."""
        named = (n for r in self.rows if r.asks in ("object", "style") for n in (*r.counts, r.second) if n)
        return tuple(dict.fromkeys(named))


def names() -> list[str]:
    """The suites there are, beside files of your own."""
    return SUITES.names()


def spec(name: str) -> SuiteSpec:
    """Read one suite's toml."""
    if hyphened(name) not in names():
        raise ValueError(f"there is no suite {name!r}, nor such a file{did_you_mean(name, names())}")
    file = SUITES.entry(name).file
    data = read_toml(file)
    with refusing(file, "no suite"):
        groups = tuple(GroupSpec(**g) for g in data.pop("groups", ()))
        own = {f.name for f in dataclasses.fields(SuiteSpec)}
        facts = {key: value for key, value in data.items() if key in own}
        return SuiteSpec(**facts, groups=groups, brings={k: v for k, v in data.items() if k not in own})


def describe() -> list[dict[str, str]]:
    """Name, version, licence and purpose of every suite."""
    fields = ("name", "version", "licence", "source", "about")
    return [{f: getattr(spec(name), f) for f in fields} for name in names()]


def choose_groups(
    suite: SuiteSpec, only: Sequence[str], per_group: int | None, sizes: Mapping[str, int]
) -> tuple[GroupSpec, ...]:
    """The groups to make, each with its size; ValueError for a name that the suite does not have, or a size under 1."""
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
            raise ValueError(f"group {group.name} was given {size} pictures; it needs at least 1")
        out.append(dataclasses.replace(group, size=size))
    return tuple(out)
