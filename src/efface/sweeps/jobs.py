"""A grid's expansion into jobs, one for each edit."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..catalog import METHODS
from ..files import hash_json
from .grid import Grid, Variant


@dataclass(frozen=True)
class Job:
    """One edit: everything that decides how it is fitted, as it stands in the grid, and how it is measured."""

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
    setting: str = ""
    """The swept setting with its value, such as "steps 240"; "" where the method is not swept."""
    rank: int = 0
    """The place of that value among the method's, the weakest being 0."""
    strengths: tuple[float, ...] = (1.0,)
    attacks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For a person."""
        made = f"{self.label}{f' ({self.setting})' if self.setting else ''} of {self.concept} on {self.model}"
        return made + (f", seed {self.seed}" if self.seed else "")

    def key(self) -> str:
        """A hash of what is asked for, by which the job is locked and its log is named."""
        return hash_json(dataclasses.asdict(self))[:20]


@dataclass(frozen=True)
class Arm:
    """A method or variant with one value of its swept setting."""

    variant: Variant
    setting: str = ""
    rank: int = 0
    turn: int = 0
    """0 is the last value, the method's own; the values before it follow, so that they are run later."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def list_variants(grid: Grid) -> list[Variant]:
    """The methods, as variants of their own name and without settings, then the grid's variants."""
    return [*(Variant(name=name, method=name) for name in grid.methods), *grid.variants]


def list_arms(grid: Grid) -> list[Arm]:
    """Every method and variant at each value of its swept setting: first all at their own, then weaker ones."""
    found = []
    for variant in list_variants(grid):
        swept = grid.sweep.get(variant.name, {})
        if not swept:
            found.append(Arm(variant))
        for field, values in swept.items():
            for rank, value in enumerate(values):
                turn = len(values) - 1 - rank
                found.append(Arm(variant, f"{field} {value}", rank, turn, {field: value}))
    return sorted(found, key=lambda arm: arm.turn)


def expand(grid: Grid) -> list[Job]:
    """The jobs, model by model, so that a worker that takes them in order seldom changes its model."""
    jobs = []
    for model, arm, seed in itertools.product(grid.models, list_arms(grid), grid.seeds):
        kind = METHODS.get(arm.variant.method)
        seeded = any(field.name == "seed" for field in dataclasses.fields(kind))
        if seed != grid.seeds[0] and not seeded:
            continue
        own = {**grid.settings.get(arm.variant.method, {}), **arm.variant.settings, **arm.settings}
        settings = own | ({"seed": seed} if seeded and seed else {})
        for split, concept in _list_concepts(grid, arm.variant):
            jobs.append(_build(grid, arm, model, split, concept, settings, seed))
    return jobs


def _build(grid: Grid, arm: Arm, model: str, split: str, concept: str, settings: Mapping[str, Any], seed: int) -> Job:
    variant, kind = arm.variant, METHODS.get(arm.variant.method)
    weaker = grid.weaker_attacks if arm.turn and grid.weaker_attacks is not None else grid.attacks
    return Job(
        model=model,
        split=split,
        concept=concept,
        label=variant.name,
        method=variant.method,
        targets=tuple(part.strip() for part in concept.split(" + ")),
        anchor=grid.anchors.get(concept, "") if getattr(kind, "uses_anchor", False) and variant.anchored else "",
        keep=grid.keep.get(concept, ()) if getattr(kind, "uses_keep", False) else (),
        settings=settings,
        seed=seed,
        setting=arm.setting,
        rank=arm.rank,
        strengths=grid.strengths if variant.strengths is None else variant.strengths,
        attacks=weaker if variant.attacks is None else variant.attacks,
    )


def _list_concepts(grid: Grid, variant: Variant) -> Iterator[tuple[str, str]]:
    for split, some in grid.concepts.items():
        yield from ((split, each) for each in some if variant.concepts is None or each in variant.concepts)


def list_attacks(names: Sequence[str]) -> list[str]:
    """The attacks by name; "standard" is five of them."""
    from ..attacks import STANDARD

    return [one for some in names for one in (STANDARD if some == "standard" else (some,))]
