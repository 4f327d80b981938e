"""Makes a suite by its name: one of efface's, or a file of the user's."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..concept import Erasure
from . import hub
from .entries import expand_pairs
from .listed import Limits, build_from_pairs, build_from_table, read_list
from .rows import build
from .spec import Suite, SuiteSpec, list_names, read_spec
from .table import SUFFIXES, check_table, read_table
from .world import Thing, World

Fetch = Callable[[str, str, str], Path]


def is_file(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def check_suite(name: str) -> None:
    """Raises what `make` would raise for a name that is no suite or a missing file, without opening anything."""
    if is_file(name):
        check_table(Path(name))
    else:
        read_spec(name)


def needs_world(name: str) -> bool:
    """Whether the suite asks for things of the model's own world, as the glyphs suites do."""
    return not is_file(name) and not read_spec(name).brings


def knows_all(name: str, targets: Sequence[str]) -> bool:
    """Whether a suite with a world of its own can judge all of these targets; False for a suite without one."""
    suite = read_spec(name)
    if "world" not in suite.brings:
        return False
    world = build_own_world(suite)
    return set(world.spell_names(targets)) <= set(world.styles if suite.targets == "styles" else world.names)


def make_suite(
    name: str,
    erasure: Erasure,
    world: World | None = None,
    *,
    per_group: int | None = None,
    only: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    used: Sequence[str] = (),
    asks: str = "",
    fetch: Fetch = hub.fetch,
) -> Suite:
    """Makes a suite for an erasure: by its name, or from a file of prompts (.csv, .json, .txt … or .parquet).

    Args:
        name: the suite's name, or a file.
        erasure: the request.
        world: the things that the model can draw, which the glyphs suites need.
        per_group: the number of pictures in each group, instead of the suite's own sizes.
        only: the names of the groups to make; all when empty.
        sizes: the number of pictures in single groups, by name, which overrides `per_group`.
        used: further words that fitting has used, which therefore count as seen.
        asks: what all rows of a file ask for, a target or "captions"; by default it is found from columns and prompts.
        fetch: fetches the file of a repository of the hub at a revision.

    Raises:
        ValueError: the suite, a group or a target is unknown, rows are malformed, or a glyphs suite lacks a world.
        OSError: there is no such file, or the hub can't be reached.
    """
    if is_file(name):
        return read_list(name, erasure, per_group, only, sizes, used, asks, world)
    suite = read_spec(name)
    if asks and "hub" not in suite.brings:
        raise ValueError(f"suite {name} says itself what its rows ask for; asks is for files")
    if "world" in suite.brings:
        world = build_own_world(suite)
    if "hub" in suite.brings:
        place = suite.brings["hub"]
        table = read_table(fetch(place["repository"], place["file"], place["revision"]))
        stamped = dataclasses.replace(suite, version=f"{suite.version}+{table.sha256[:12]}")
        limits = Limits(per_group, only, sizes or {})
        return build_from_table(stamped, table, erasure, limits, used, asks, world)
    if "pairs" in suite.brings:
        listed = expand_pairs(suite.brings["pairs"], suite.brings["seeds"], f"{suite.name}/{suite.version}")
        limits = {**(suite.brings["sizes"] if per_group is None else {}), **(sizes or {})}
        return build_from_pairs(suite, listed, erasure, Limits(per_group, only, limits), used)
    if world is None:
        raise ValueError(
            f"suite {name} is for glyphs and its like; other models take {', '.join(list_without_world())} or a file"
        )
    return build(name, erasure, world, per_group, only, sizes, used)


def list_without_world() -> list[str]:
    """The suites that need no world of the model."""
    return [name for name in list_names() if not needs_world(name)]


def build_own_world(suite: SuiteSpec) -> World:
    """The world in a suite's TOML file."""
    facts = suite.brings["world"]
    things = tuple(Thing(t["name"], t.get("group", ""), tuple(t.get("synonyms", ()))) for t in facts["things"])
    return World(things, tuple(facts.get("styles", ())))
