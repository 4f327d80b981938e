"""The grid file: what is to be erased, by which methods, and how it is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..catalog import ATTACKS, METHODS
from ..files import naming, parse_toml_value, read_toml

ALL = "all"
"""The split of concepts that are listed without one."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Drawing(Part):
    """How pictures are drawn; None where the model's own number is taken."""

    steps: int | None = Field(default=None, ge=1)
    guidance: float | None = None
    sampler: Literal["own", "ddim", "dpm", "unipc"] = "own"


class Attacking(Part):
    """What each attack may spend, as in `efface.attack`."""

    rows: int = Field(default=24, ge=1)
    controls: int = Field(default=8, ge=1)
    budget: str = Field(default="default", coerce_numbers_to_str=True)
    settings: dict[str, dict[str, Any]] = {}


class Variant(Part):
    """A method under another name, with settings of its own."""

    name: str
    method: str
    settings: dict[str, Any] = {}
    anchored: bool = True
    """Whether it is given the concepts' anchors, where its method can do without."""
    concepts: tuple[str, ...] | None = None
    """Those of the grid's concepts that it is made of; all where this is missing."""
    strengths: tuple[float, ...] | None = None
    """The grid's where this is missing. 0 is the untouched base."""
    attacks: tuple[str, ...] | None = None
    """The grid's where this is missing."""


class Comparison(Part):
    """Pairs of methods or variants, compared where both reach the same value of another number."""

    title: str
    pairs: tuple[tuple[str, str], ...]
    of: str
    """What is compared, as metric/group, such as asr@unlearndiff/target."""
    at: str
    """What is held equal, as metric/group, such as psr1/neighbour."""
    levels: tuple[float, ...] = ()
    """The values at which it is held."""
    below: tuple[float, ...] = ()
    """Or how far under the untouched base's value it is held."""


class Auditing(Part):
    """An audit of each edit (`efface audit`): the words that it changed most, and words taken at random."""

    vocabulary: tuple[str, ...] = ()
    """The words to search; the model's common ones, and its world's names, where this is empty."""
    worst: int = Field(default=4, ge=1)
    controls: int = Field(default=8, ge=0)
    count: int = Field(default=8, ge=1)
    """Pictures of each word that is drawn, before and after."""


class Waking(Part):
    """How easily prompts wake the neurons that each edit switched off (`efface neurons`)."""

    adversarial: dict[str, tuple[str, ...]]
    """By concept: prompts that should bring it back. Concepts that are not named are passed over."""
    template: str = "a picture of a {}"
    """How the concept itself is asked for."""
    seeds: int = Field(default=8, ge=2)
    top: float = Field(default=0.05, gt=0, lt=1)


class Grid(Part):
    """Every combination of models, methods, concepts, seeds and strengths, and the attacks on each."""

    title: str = ""
    about: str = ""
    """What the page says above its tables."""
    columns: tuple[str, ...] = ()
    """The numbers that the page shows, as metric/group, such as esr1/target; the headline ones where this is empty."""
    models: tuple[str, ...]
    methods: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    concepts: dict[str, tuple[str, ...]]
    """By split. "cat + dog" is one request with two targets."""
    anchors: dict[str, str] = {}
    """By concept, for methods that take an anchor."""
    keep: dict[str, tuple[str, ...]] = {}
    """By concept, for methods that take concepts to keep."""
    settings: dict[str, dict[str, Any]] = {}
    """By method, over those that the model suggests."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds; a method without randomness is fitted once."""
    strengths: tuple[float, ...] = (1.0,)
    sweep: dict[str, dict[str, tuple[Any, ...]]] = {}
    """By method or variant: one setting in several values, from the weakest erasure to the method's own."""
    attacks: tuple[str, ...] = ()
    weaker_attacks: tuple[str, ...] | None = None
    """The attacks on all but the last value of a swept setting; `attacks` where this is missing."""
    attacking: Attacking = Attacking()
    suite: str = ""
    """The suite that suits the model and the concept, where this is empty."""
    asks: str = ""
    protocol: str = ""
    scorers: tuple[str, ...] = ()
    sizes: dict[str, int] = {}
    """Pictures in each group of the suite; only these groups are drawn. The suite's own where this is empty."""
    drawing: Drawing = Drawing()
    expected_rows: int | None = None
    """Rows of a suite that has to be fetched, for an estimate before it is."""
    seconds_picture: float | None = Field(default=None, gt=0)
    """For an estimate: seconds that a picture takes, drawn and judged, on the machine that the grid is meant for; where
    this is missing, what was measured of the bundled models, and 1 for others."""
    seconds_update: float | None = Field(default=None, gt=0)
    """For an estimate: seconds that an update of the weights takes; 1 where nothing is known."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """The share of each group's pictures that is drawn."""
    reported: dict[str, Any] = {}
    """What a paper reports, by method or variant and metric, shown beside what is measured."""
    reported_splits: tuple[str, ...] = ()
    """The splits beside which it is shown; all where this is empty."""
    compare: tuple[Comparison, ...] = ()
    audit: Auditing | None = None
    neurons: Waking | None = None


def read_grid(path: str | Path, fraction: float | None = None, changes: Sequence[str] = ()) -> Grid:
    """Read and check a grid.

    Args:
        fraction: the share of each group's pictures to draw, in the place of the file's own.
        changes: further keys in the place of the file's own, each as KEY=VALUE, such as settings.esd.steps=100.

    Raises:
        OSError: no such file.
        ValueError: no TOML, an unknown or mistyped key, an unknown method or attack, or nothing to do; says which.
    """
    path = Path(path)
    found = read_toml(path, "write it as TOML")
    for change in changes:
        _change(found, change)
    if isinstance(listed := found.get("concepts"), list):
        found["concepts"] = {ALL: listed}
    if isinstance(model := found.pop("model", None), str):
        found["models"] = [model]
    if fraction is not None:
        found["fraction"] = fraction
    try:
        grid = Grid.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        keys = ", ".join(Grid.model_fields)
        raise ValueError(f"{path}: {where}: {first['msg']}; a grid has the keys {keys}") from error
    with naming(path):
        _check(grid)
    return grid


def _change(found: dict[str, Any], change: str) -> None:
    """Set one key of a grid's table; ValueError where it is no KEY=VALUE, or goes through what is no table."""
    key, equals, value = change.partition("=")
    *parents, last = (part.strip() for part in key.split("."))
    for parent in parents:
        found = found.setdefault(parent, {})
        if not isinstance(found, dict):
            raise ValueError(f"{change!r} sets a key of {parent}, which is no table of the grid")
    if not equals or not last:
        raise ValueError(f"{change!r} is no KEY=VALUE, such as settings.esd.steps=100 or suite=prompts.csv")
    found[last] = parse_toml_value(value.strip())


def _check(grid: Grid) -> None:
    if not (grid.models and any(grid.concepts.values()) and (grid.methods or grid.variants)):
        raise ValueError("it asks for nothing: it needs models, concepts, and methods or variants")
    labels = [*grid.methods, *(v.name for v in grid.variants)]
    if len(set(labels)) < len(labels):
        raise ValueError(f"two methods or variants share a name: {', '.join(labels)}")
    for method in (*grid.methods, *(v.method for v in grid.variants), *grid.settings):
        METHODS.named(method)
    for attack in (*grid.attacks, *(grid.weaker_attacks or ()), *(a for v in grid.variants for a in v.attacks or ())):
        if attack != "standard":
            ATTACKS.named(attack)
    _check_names(grid, labels)


def _check_names(grid: Grid, labels: list[str]) -> None:
    """Raises ValueError where a table of the grid names a concept, method or setting that the grid does not have."""
    concepts = {c for some in grid.concepts.values() for c in some}
    spoken: dict[str, Iterable[str]] = {"[anchors]": grid.anchors, "[keep]": grid.keep}
    spoken |= {f"concepts of variant {v.name}": v.concepts or () for v in grid.variants}
    spoken |= {"[neurons.adversarial]": grid.neurons.adversarial if grid.neurons else ()}
    for name, named in spoken.items():
        if stray := sorted(set(named) - concepts):
            raise ValueError(f"{name} speaks of {stray[0]}, which is not among the concepts")
    pairs = {f"compare {c.title!r}": [label for pair in c.pairs for label in pair] for c in grid.compare}
    for name, named in {"[sweep]": [*grid.sweep], **pairs}.items():
        if stray := sorted(set(named) - set(labels)):
            raise ValueError(f"{name} speaks of {stray[0]}, which is not among the methods and variants")
    methods = dict(zip(labels, (*grid.methods, *(v.method for v in grid.variants)), strict=True))
    for label, swept in grid.sweep.items():
        fields = {field.name for field in dataclasses.fields(METHODS.get(methods[label]))}
        if len(swept) != 1 or not fields.issuperset(swept) or not all(swept.values()):
            raise ValueError(
                f"[sweep] of {label} names {', '.join(swept) or 'nothing'}; it takes one setting of "
                f"{methods[label]} with its values, such as {sorted(fields)[0]} = [1, 2]"
            )
    for each in grid.compare:
        if bool(each.levels) == bool(each.below):
            raise ValueError(f"compare {each.title!r} takes either levels or below")
    _check_anchors(grid, methods)


def _check_anchors(grid: Grid, methods: Mapping[str, str]) -> None:
    """Raises ValueError where a method that needs an anchor has none for a concept."""
    own = {variant.name: variant for variant in grid.variants}
    for label, method in methods.items():
        if not getattr(METHODS.get(method), "needs_anchor", False):
            continue
        variant = own.get(label)
        if variant and not variant.anchored:
            raise ValueError(f"variant {label} is to have no anchor, which its method {method} needs")
        every = [concept for some in grid.concepts.values() for concept in some]
        for concept in every if variant is None or variant.concepts is None else variant.concepts:
            if not grid.anchors.get(concept):
                raise ValueError(f"{label} needs an anchor for {concept}: add one under [anchors]")
