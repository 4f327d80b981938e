"""The grid file: what is to be erased, by which methods, and how it is measured; and its expansion into jobs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..catalog import ATTACKS, METHODS
from ..files import hash_json, naming, read_toml

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
    budget: str = "default"
    settings: dict[str, dict[str, Any]] = {}


class Variant(Part):
    """A method under another name, with settings of its own."""

    name: str
    method: str
    settings: dict[str, Any] = {}


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
    attacks: tuple[str, ...] = ()
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
    fraction: float = Field(default=1.0, gt=0, le=1)
    """The share of each group's pictures that is drawn."""
    reported: dict[str, Any] = {}
    """What a paper reports, by method or variant and metric, shown beside what is measured."""
    reported_splits: tuple[str, ...] = ()
    """The splits beside which it is shown; all where this is empty."""


@dataclass(frozen=True)
class Job:
    """One edit: everything that decides how it is fitted, as it stands in the grid."""

    model: str
    split: str
    concept: str
    label: str
    """The method's name, or the variant's."""
    method: str
    targets: tuple[str, ...]
    anchor: str
    keep: tuple[str, ...]
    settings: Mapping[str, Any]
    seed: int

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.label} of {self.concept} on {self.model}" + (f", seed {self.seed}" if self.seed else "")

    def key(self) -> str:
        """A hash of what is asked for, by which the job is locked and its log is named."""
        return hash_json(dataclasses.asdict(self))[:20]


def read_grid(path: str | Path, fraction: float | None = None) -> Grid:
    """Read and check a grid.

    Args:
        fraction: the share of each group's pictures to draw, in the place of the file's own.

    Raises:
        OSError: no such file.
        ValueError: no TOML, an unknown or mistyped key, an unknown method or attack, or nothing to do; says which.
    """
    path = Path(path)
    found = read_toml(path, "write it as TOML")
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


def _check(grid: Grid) -> None:
    if not (grid.models and any(grid.concepts.values()) and (grid.methods or grid.variants)):
        raise ValueError("it asks for nothing: it needs models, concepts, and methods or variants")
    labels = [*grid.methods, *(v.name for v in grid.variants)]
    if len(set(labels)) < len(labels):
        raise ValueError(f"two methods or variants share a name: {', '.join(labels)}")
    for method in (*grid.methods, *(v.method for v in grid.variants), *grid.settings):
        METHODS.named(method)
    for attack in grid.attacks:
        if attack != "standard":
            ATTACKS.named(attack)
    concepts = {c for some in grid.concepts.values() for c in some}
    for name, table in (("anchors", grid.anchors), ("keep", grid.keep)):
        if stray := sorted(set(table) - concepts):
            raise ValueError(f"[{name}] speaks of {stray[0]}, which is not among the concepts")
    for job in expand(grid):
        kind = METHODS.get(job.method)
        if getattr(kind, "needs_anchor", False) and not job.anchor:
            raise ValueError(f"{job.label} needs an anchor for {job.concept}: add one under [anchors]")


def expand(grid: Grid) -> list[Job]:
    """The jobs, model by model, so that a worker that takes them in order seldom changes its model."""
    made = [(name, name, {}) for name in grid.methods] + [(v.name, v.method, v.settings) for v in grid.variants]
    jobs = []
    for model, (label, method, own), seed in itertools.product(grid.models, made, grid.seeds):
        kind = METHODS.get(method)
        seeded = any(field.name == "seed" for field in dataclasses.fields(kind))
        if seed != grid.seeds[0] and not seeded:
            continue
        settings = {**grid.settings.get(method, {}), **own, **({"seed": seed} if seeded and seed else {})}
        for split, concept in _list_concepts(grid):
            anchor = grid.anchors.get(concept, "") if getattr(kind, "uses_anchor", False) else ""
            keep = grid.keep.get(concept, ()) if getattr(kind, "uses_keep", False) else ()
            targets = tuple(part.strip() for part in concept.split(" + "))
            jobs.append(Job(model, split, concept, label, method, targets, anchor, keep, settings, seed))
    return jobs


def _list_concepts(grid: Grid) -> Sequence[tuple[str, str]]:
    return [(split, concept) for split, some in grid.concepts.items() for concept in some]
