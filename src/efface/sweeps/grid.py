"""The grid file: what is erased, by which methods, and how it is measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..catalog import did_you_mean
from ..files import naming, parse_toml_value, read_toml
from .grid_checks import check_grid

ALL = "all"
"""The split of concepts that are listed without a split."""
FEWEST = 4
"""Prompts that an attack has in a sample of a grid, and controls, unless the grid has fewer itself."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Drawing(Part):
    """How pictures are drawn; None means the model's own number."""

    steps: int | None = Field(default=None, ge=1)
    guidance: float | None = None
    sampler: Literal["own", "ddim", "dpm", "unipc"] = "own"


class Attacking(Part):
    """The size and budget of each attack, as in `efface.attack`."""

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
    """Whether it gets the concepts' anchors, where its method can work without."""
    concepts: tuple[str, ...] | None = None
    """The concepts of the grid that it erases; all where this is missing."""
    strengths: tuple[float, ...] | None = None
    """Its strengths; the grid's where this is missing. 0 is the untouched base."""
    attacks: tuple[str, ...] | None = None
    """Its attacks; the grid's where this is missing."""


class Comparison(Part):
    """A comparison of pairs of methods or variants where both reach the same value of another number."""

    title: str
    pairs: tuple[tuple[str, str], ...]
    of: str
    """The number that is compared, as metric/group, such as asr@unlearndiff/target."""
    at: str
    """The number that is held equal, as metric/group, such as psr1/neighbour."""
    levels: tuple[float, ...] = ()
    """The values at which it is held equal."""
    below: tuple[float, ...] = ()
    """Instead of `levels`: how far below the untouched base's value it is held equal."""


class Auditing(Part):
    """An audit of each edit (`efface audit`): the words that it changed most, and random words."""

    vocabulary: tuple[str, ...] = ()
    """The words to search; where this is empty, the model's common words and its world's names."""
    worst: int = Field(default=4, ge=1)
    controls: int = Field(default=8, ge=0)
    count: int = Field(default=8, ge=1)
    """Number of pictures of each word, both before and after."""


class Waking(Part):
    """A diagnosis of how much prompts activate the neurons that each edit switched off (`efface neurons`)."""

    adversarial: dict[str, tuple[str, ...]]
    """For each concept, prompts that should bring it back. Concepts that are not named are skipped."""
    template: str = "a picture of a {}"
    """The prompt for the concept itself."""
    seeds: int = Field(default=8, ge=2)
    top: float = Field(default=0.05, gt=0, lt=1)


class Purifying(Part):
    """Purification, under each whole edit, of pictures that the untouched base draws (`efface purify`)."""

    sizes: dict[str, int] = {"target": 8, "neighbour": 8}
    """Pictures of each group of the suite."""
    steps: int = Field(default=50, ge=1)
    guidance: float = Field(default=2.0, ge=0)
    refine: int = Field(default=0, ge=0)


class Grid(Part):
    """Every combination of models, methods, concepts, seeds and strengths, and the attacks on each."""

    title: str = ""
    about: str = ""
    """The text of the page above its tables."""
    columns: tuple[str, ...] = ()
    """The numbers on the page, as metric/group, such as esr1/target; where this is empty, the headline ones."""
    models: tuple[str, ...]
    methods: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    concepts: dict[str, tuple[str, ...]]
    """The concepts by split. "cat + dog" is one request with two targets."""
    anchors: dict[str, str] = {}
    """The anchor of each concept, for methods that take one."""
    keep: dict[str, tuple[str, ...]] = {}
    """The concepts to keep for each concept, for methods that take some."""
    settings: dict[str, dict[str, Any]] = {}
    """Settings by method, which override those that the model suggests."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds; a method without randomness is fitted once."""
    strengths: tuple[float, ...] = (1.0,)
    sweep: dict[str, dict[str, tuple[Any, ...]]] = {}
    """For each method or variant, several values of one setting, from the weakest erasure to the method's own."""
    attacks: tuple[str, ...] = ()
    weaker_attacks: tuple[str, ...] | None = None
    """The attacks on all but the last value of a swept setting; `attacks` where this is missing."""
    attacking: Attacking = Attacking()
    suite: str = ""
    """The suite's name; where this is empty, the one that suits the model and the concept. In a file's name {concept}
    stands for the concept, with _ for blanks."""
    asks: str = ""
    """What all rows of a file ask for; {concept} stands for the concept."""
    protocol: str = ""
    scorers: tuple[str, ...] = ()
    sizes: dict[str, int] = {}
    """Pictures in each group of the suite, of which only these are drawn; where this is empty, the suite's own."""
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
    """A paper's numbers, by method or variant and metric, which the page shows beside the measured ones; those of a
    single concept by the concept before these."""
    reported_splits: tuple[str, ...] = ()
    """The splits beside which these are shown; all where this is empty."""
    compare: tuple[Comparison, ...] = ()
    audit: Auditing | None = None
    neurons: Waking | None = None
    purify: Purifying | None = None

    def name_suite(self, concept: str) -> str:
        """The suite of a concept's requests; "" where the model's and the concept's own is taken."""
        return self.suite.replace("{concept}", concept.replace(" ", "_"))

    def name_asked(self, concept: str) -> str:
        """What all rows of a concept's file ask for; "" where the file says it."""
        return self.asks.replace("{concept}", concept)


def read_grid(path: str | Path, fraction: float | None = None, changes: Sequence[str] = ()) -> Grid:
    """Reads and checks a grid.

    Args:
        path: the TOML file.
        fraction: the share of each group's pictures to draw, instead of the file's own; where it is smaller than that,
            the prompts of attacks and of their controls become fewer by as much, but not fewer than `FEWEST`.
        changes: values that replace the file's own, each as KEY=VALUE, such as settings.esd.steps=100.

    Raises:
        OSError: there is no such file.
        ValueError: the file is no TOML, a key, method or attack is unknown or mistyped, or there is nothing to do; the
            message says which.
    """
    path = Path(path)
    found = read_toml(path, "write it as TOML")
    for change in changes:
        _change_key(found, change)
    if isinstance(listed := found.get("concepts"), list):
        found["concepts"] = {ALL: listed}
    _unite_models(path, found, changes)
    with naming(path):
        return _validate(found, fraction)


def check_again(grid: Grid, fraction: float | None = None) -> Grid:
    """A grid that was made or changed in Python, checked like one from a file, or a sample of it as by `read_grid`.

    Raises:
        ValueError: as `read_grid`.
    """
    return _validate(grid.model_dump(), fraction)


def _validate(found: Mapping[str, Any], fraction: float | None) -> Grid:
    """Makes a grid of its table, or a sample of it, and checks it; raises ValueError, which says what is wrong."""
    try:
        whole = Grid.model_validate(found)
        grid = whole if fraction is None else Grid.model_validate({**found, "fraction": fraction})
    except ValidationError as error:
        raise ValueError(_explain(error)) from error
    if grid.fraction < whole.fraction:
        share, of = grid.fraction / whole.fraction, whole.attacking
        fewer = {
            name: min(n, max(FEWEST, round(n * share))) for name, n in (("rows", of.rows), ("controls", of.controls))
        }
        grid = grid.model_copy(update={"attacking": of.model_copy(update=fewer)})
    check_grid(grid)
    return grid


def _unite_models(path: Path, found: dict[str, Any], changes: Sequence[str]) -> None:
    """Writes `model`, which names one, as `models`; raises ValueError where both are given, or it is no text."""
    if {"model", "models"} <= set(found):
        given = [key for key in ("model", "models") if any(c.partition("=")[0].strip() == key for c in changes)]
        if len(given) != 1:
            raise ValueError(f"{path}: it has both model and models; leave one out")
        found.pop("model" if given == ["models"] else "models")
    if "model" in found:
        if not isinstance(found["model"], str):
            raise ValueError(f'{path}: model is a text, such as model = "glyphs"; several are models = [...]')
        found["models"] = [found.pop("model")]


def _explain(error: ValidationError) -> str:
    """The first of pydantic's errors about a grid, in words."""
    first = error.errors()[0]
    *parents, last = (str(part) for part in first["loc"])
    where = ".".join([*parents, last])
    if first["type"] == "extra_forbidden":
        place = f"a grid has no key {last!r}" if not parents else f"{'.'.join(parents)} has no key {last!r}"
        return place + (did_you_mean(last, tuple(Grid.model_fields), len(Grid.model_fields)) if not parents else "")
    if first["type"] == "missing":
        return f"the key {where!r} is missing" + (', as in models = ["glyphs"]' if where == "models" else "")
    given = first["input"]
    if (first["type"] == "tuple_type" or where == "concepts") and isinstance(given, str | int | float):
        return f"{where} is a list: write {last} = [{json.dumps(given)}], not {json.dumps(given)}"
    return f"{where}: {first['msg']}, got {given!r}"


def _change_key(found: dict[str, Any], change: str) -> None:
    """Sets one key of a grid's table; raises ValueError where `change` is no KEY=VALUE, or its parent is no table."""
    key, equals, value = change.partition("=")
    *parents, last = (part.strip() for part in key.split("."))
    for parent in parents:
        found = found.setdefault(parent, {})
        if not isinstance(found, dict):
            raise ValueError(f"{change!r} sets a key of {parent}, which is no table of the grid")
    if not equals or not last:
        raise ValueError(f"{change!r} is no KEY=VALUE, such as settings.esd.steps=100 or suite=prompts.csv")
    found[last] = parse_toml_value(value.strip())
