"""A suite by its name: one of ours, or a file of your own."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..concept import Erasure
from . import hub
from .entries import expand_pairs
from .listed import Limits, build_from_pairs, build_from_table, read_list
from .rows import build
from .spec import Suite, SuiteSpec, names, spec
from .table import SUFFIXES, check_table, read_table
from .world import Thing, World

Fetch = Callable[[str, str, str], Path]


def is_file(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def check(name: str) -> None:
    """Raises what `make` would of a name that is no suite, or a file that is missing, and opens nothing."""
    if is_file(name):
        check_table(Path(name))
    else:
        spec(name)


def needs_world(name: str) -> bool:
    """Does the suite ask for what the model's own world holds (the glyphs suites)?"""
    return not is_file(name) and not spec(name).brings


def make(
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
    """A suite for what is erased: by its name, or a file of prompts (.csv, .json, .txt … or .parquet).

    Args:
        world: what the model can draw; the glyphs suites need it.
        per_group: pictures in each group instead of the suite's own sizes.
        only: names of the groups to make; all when empty.
        sizes: pictures in single groups, by name; goes before `per_group`.
        used: further words that fitting has used, which therefore count as seen.
        asks: what all rows of a file ask for, a target or "captions"; found by columns and prompts by default.
        fetch: gives the file of a repository of the hub at a revision.

    Raises:
        ValueError: an unknown suite, group or target, malformed rows, or a glyphs suite without a world.
        OSError: no such file, or the hub can't be reached.
    """
    if is_file(name):
        return read_list(name, erasure, per_group, only, sizes, used, asks, world)
    suite = spec(name)
    if asks and "hub" not in suite.brings:
        raise ValueError(f"suite {name} says itself what its rows ask for; asks is for files")
    if "world" in suite.brings:
        world = own_world(suite)
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
        raise ValueError(f"suite {name} is for models of the glyphs make; others take {', '.join(ours())} or a file")
    return build(name, erasure, world, per_group, only, sizes, used)


def ours() -> list[str]:
    """The suites that ask nothing of a model's world."""
    return [name for name in names() if not needs_world(name)]


def own_world(suite: SuiteSpec) -> World:
    """The world that a suite's toml brings."""
    facts = suite.brings["world"]
    things = tuple(Thing(t["name"], t.get("group", ""), tuple(t.get("synonyms", ()))) for t in facts["things"])
    return World(things, tuple(facts.get("styles", ())))
