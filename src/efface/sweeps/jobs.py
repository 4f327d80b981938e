"""Expands a grid into jobs, one for each edit."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..catalog import METHODS
from ..concept import Erasure
from ..files import hash_json
from .grid import Grid, Variant


@dataclass(frozen=True)
class Job:
    """One edit: everything in the grid that determines how it is fitted and measured."""

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
    """The rank of that value among the method's; the weakest has 0."""
    strengths: tuple[float, ...] = (1.0,)
    attacks: tuple[str, ...] = ()
    weaker_attacks: tuple[str, ...] | None = None
    """The attacks at all strengths but the largest; `attacks` where this is None."""

    def list_attacks(self, strength: float) -> tuple[str, ...]:
        """The attacks on the edit at one of its strengths."""
        if strength < max(self.strengths) and self.weaker_attacks is not None:
            return self.weaker_attacks
        return self.attacks

    @property
    def request(self) -> Erasure:
        """What it erases; raises ValueError where the concepts can't be one request."""
        return Erasure(self.targets, self.anchor, self.keep)

    @property
    def name(self) -> str:
        """The job in words."""
        made = f"{self.label}{f' ({self.setting})' if self.setting else ''} of {self.concept} on {self.model}"
        return made + (f", seed {self.seed}" if self.seed else "")

    def compute_key(self) -> str:
        """A hash of the job, which names its log."""
        return hash_json(dataclasses.asdict(self))[:20]


@dataclass(frozen=True)
class Arm:
    """A method or variant with one value of its swept setting."""

    variant: Variant
    setting: str = ""
    rank: int = 0
    turn: int = 0
    """The order of runs: 0 is the last value, the method's own, and the values before it come later."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def list_variants(grid: Grid) -> list[Variant]:
    """The methods, as variants with their own name and no settings, then the grid's variants."""
    return [*(Variant(name=name, method=name) for name in grid.methods), *grid.variants]


def list_arms(grid: Grid) -> list[Arm]:
    """Every method and variant at each value of its swept setting: first all at their own value, then weaker ones."""
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
    """The jobs in the order in which they are done.

    Model by model, so that a worker seldom changes its model; then a training seed after another, and in it a concept
    after another, the splits taking turns. A grid that is stopped has thus compared all methods on the same concepts.
    """
    jobs, arms = [], list_arms(grid)
    for model, seed, (split, concept) in itertools.product(grid.models, grid.seeds, _list_concepts(grid)):
        for arm in arms:
            seeded = is_seeded(arm.variant.method)
            if (seed == grid.seeds[0] or seeded) and concept in (arm.variant.concepts or (concept,)):
                jobs.append(_build(grid, arm, model, split, concept, seed if seeded else 0, seed))
    return jobs


def is_seeded(method: str) -> bool:
    """Whether a method has randomness, and thus a training seed."""
    return any(field.name == "seed" for field in dataclasses.fields(METHODS.get(method)))


def _build(grid: Grid, arm: Arm, model: str, split: str, concept: str, fitted: int, seed: int) -> Job:
    """A job; `fitted` is the seed that its method is given, 0 where it takes none."""
    variant, kind = arm.variant, METHODS.get(arm.variant.method)
    method = METHODS.find_name(variant.method)
    shared = {METHODS.find_name(name): values for name, values in grid.settings.items()}
    settings = {**shared.get(method, {}), **variant.settings, **arm.settings}
    own = grid.attacks if variant.attacks is None else variant.attacks
    weaker = grid.weaker_attacks if variant.attacks is None else None
    return Job(
        model=model,
        split=split,
        concept=concept,
        label=variant.name,
        method=method,
        targets=tuple(part.strip() for part in concept.split(" + ")),
        anchor=grid.anchors.get(concept, "") if getattr(kind, "uses_anchor", False) and variant.anchored else "",
        keep=grid.keep.get(concept, ()) if getattr(kind, "uses_keep", False) else (),
        settings=settings | ({"seed": fitted} if fitted else {}),
        seed=seed,
        setting=arm.setting,
        rank=arm.rank,
        strengths=grid.strengths if variant.strengths is None else variant.strengths,
        attacks=own if weaker is None or not arm.turn else weaker,
        weaker_attacks=weaker,
    )


def _list_concepts(grid: Grid) -> list[tuple[str, str]]:
    """Each concept with its split: the first of every split, then the second of each, and so on."""
    splits = [[(split, concept) for concept in some] for split, some in grid.concepts.items()]
    return [each for turn in itertools.zip_longest(*splits) for each in turn if each]


def list_attacks(names: Sequence[str]) -> list[str]:
    """The attacks by name; "standard" stands for five of them."""
    from ..attacks import STANDARD

    return [one for some in names for one in (STANDARD if some == "standard" else (some,))]
