"""Checks of a grid that need nothing but the catalogue: names, values, anchors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..catalog import ATTACKS, METHODS
from ..edits.strength import check_strength
from .reported import check_reported

if TYPE_CHECKING:
    from .grid import Grid


def check_grid(grid: Grid) -> None:
    """Raises ValueError where a grid asks for nothing, for something impossible, or for what there is not."""
    if not (grid.models and any(grid.concepts.values()) and (grid.methods or grid.variants)):
        raise ValueError("it asks for nothing: it needs models, concepts, and methods or variants")
    if stray := [column for column in grid.columns if column.count("/") != 1]:
        raise ValueError(
            f"columns names {stray[0]!r}; a column is METRIC/GROUP, such as esr1/target or asr@seeds/target"
        )
    _check_values(grid)
    for key, value in grid.model_dump().items():
        _check_plain(key, value)
    labels = [*grid.methods, *(v.name for v in grid.variants)]
    if len(set(labels)) < len(labels):
        raise ValueError(f"two methods or variants share a name: {', '.join(labels)}")
    for method in (*grid.methods, *(v.method for v in grid.variants), *grid.settings):
        METHODS.find_name(method)
    for attack in (*grid.attacks, *(grid.weaker_attacks or ()), *(a for v in grid.variants for a in v.attacks or ())):
        if attack != "standard":
            ATTACKS.find_name(attack)
    for attack in grid.attacking.settings:
        ATTACKS.find_name(attack)
    _check_names(grid, labels)
    _check_seeds(grid)
    used = {METHODS.find_name(method) for method in (*grid.methods, *(v.method for v in grid.variants))}
    if idle := [method for method in grid.settings if METHODS.find_name(method) not in used]:
        raise ValueError(f"[settings] names {idle[0]}, which is no method or variant of the grid")
    own = grid.audit or grid.purify or any((grid.attacks, *(v.attacks for v in grid.variants)))
    if grid.drawing.sampler != "own" and own:
        raise ValueError(
            "attacks, audits and purification draw by the model's own sampler, not by "
            f"{grid.drawing.sampler}; leave one out"
        )
    methods = [*(v.method for v in grid.variants), *grid.settings]
    check_reported(grid.reported, [*labels, *methods], [c for some in grid.concepts.values() for c in some])


def _check_values(grid: Grid) -> None:
    """Raises ValueError where a list has nothing or something twice, or a strength or a size is impossible."""
    lists = {"models": grid.models, "seeds": grid.seeds, "strengths": grid.strengths}
    lists |= {f"strengths of variant {v.name}": v.strengths for v in grid.variants if v.strengths is not None}
    lists |= {f"concepts.{split}": concepts for split, concepts in grid.concepts.items()}
    lists |= {f"[sweep] of {label}": values for label, swept in grid.sweep.items() for values in swept.values()}
    for name, values in lists.items():
        if twice := [value for i, value in enumerate(values) if value in values[:i]]:
            raise ValueError(f"{name} has {twice[0]!r} twice, which would count its results twice")
        if not values and not name.startswith(("concepts.", "[sweep]")):
            raise ValueError(f"{name} is empty; leave it out, or name at least one")
        if name.startswith("strengths"):
            for strength in values:
                check_strength(strength)
    if small := [f"{group} = {n}" for group, n in grid.sizes.items() if n < 1]:
        raise ValueError(f"[sizes] has {small[0]}; a group has at least 1 picture, and one that is left out has none")


def _check_plain(key: str, value: Any) -> None:
    """Raises ValueError where a value can't be passed on to the workers, whose cells would have other names."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            _check_plain(f"{key}.{name}", part)
    elif isinstance(value, list | tuple):
        for part in value:
            _check_plain(key, part)
    elif not (value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))):
        raise ValueError(f"{key} is {value}; a value is a text, true or false, a finite number, or a list of these")


def _check_seeds(grid: Grid) -> None:
    """Raises ValueError where a setting is the training seed, which the column `seed` of the table would not show."""
    tables = {f"settings.{name}": settings for name, settings in grid.settings.items()}
    tables |= {f"the settings of variant {v.name}": v.settings for v in grid.variants}
    tables |= {f"sweep.{name}": settings for name, settings in grid.sweep.items()}
    if named := [name for name, settings in tables.items() if "seed" in settings]:
        raise ValueError(f"{named[0]} has a seed; the key seeds lists the training seeds of all methods")


def _check_names(grid: Grid, labels: list[str]) -> None:
    """Raises ValueError where a table of the grid names a concept, method or setting that the grid does not have."""
    concepts = {c for some in grid.concepts.values() for c in some}
    spoken: dict[str, Iterable[str]] = {"[anchors]": grid.anchors, "[keep]": grid.keep}
    spoken |= {f"concepts of variant {v.name}": v.concepts or () for v in grid.variants}
    spoken |= {"[neurons.adversarial]": grid.neurons.adversarial if grid.neurons else ()}
    for name, named in spoken.items():
        if stray := sorted(set(named) - concepts):
            raise ValueError(f"{name} names {stray[0]}, which is not among the concepts")
    pairs = {f"compare {c.title!r}": [label for pair in c.pairs for label in pair] for c in grid.compare}
    for name, named in {"[sweep]": [*grid.sweep], **pairs}.items():
        if stray := sorted(set(named) - set(labels)):
            raise ValueError(f"{name} names {stray[0]}, which is not among the methods and variants")
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
            raise ValueError(f"variant {label} has anchored = false, but its method {method} needs an anchor")
        every = [concept for some in grid.concepts.values() for concept in some]
        for concept in every if variant is None or variant.concepts is None else variant.concepts:
            if not grid.anchors.get(concept):
                raise ValueError(f"{label} needs an anchor for {concept}: add one under [anchors]")
