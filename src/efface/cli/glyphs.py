"""What the command line knows of models of the glyphs make: their world, which suite fits, how well they draw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..concept import Erasure, check_phrases
from ..suites import world
from ..suites.rows import build
from ..suites.world import locate
from .console import warn

if TYPE_CHECKING:
    from ..models.base import Model

ENOUGH = 0.5
"""A target that the base shows less often is warned about before it is erased."""
LOOK = 24


def bundle_of(model: str) -> Path | None:
    """The folder with the model's world and judges, or None for a model of another make."""
    try:
        return locate(model)
    except FileNotFoundError:
        return None


def expand(model: str, targets: tuple[str, ...]) -> tuple[str, ...]:
    """The targets with an umbrella word ("unsafe") replaced by what it covers in the model's world."""
    bundle = bundle_of(model)
    return world.load(bundle).expand(targets) if bundle else targets


def check_request(model: str, targets: tuple[str, ...], keep: tuple[str, ...]) -> None:
    """Raises ValueError for several concepts in one flag, and for a concept that is to go under one name and stay
    under another.
    """
    bundle = bundle_of(model)
    known = world.load(bundle) if bundle else None
    called = [name for thing in known.things for name in (thing.name, *thing.synonyms)] if known else []
    named = (*called, *read_classes(model))
    check_phrases(targets, "target", named)
    check_phrases(keep, "keep", named)
    own = dict(zip(known.own_names(targets), targets, strict=True)) if known else {}
    for word, name in zip(keep, known.own_names(keep), strict=True) if known else ():
        if name in own:
            raise ValueError(f"to be erased and kept at once: {own[name]} and {word}, two names of {name}")


def read_classes(model: str) -> tuple[str, ...]:
    """The names of a class-conditional model's classes, where its folder lists them."""
    file = Path(model) / "classes.json"
    listed = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else ()
    return tuple(name for name in listed if isinstance(name, str))


def suite_for(erasure: Erasure, known: world.World) -> str:
    """The suite that judges an erasure: classes, styles, everything unsafe, or objects."""
    if not known.styles:
        return "glyphs-classes"
    targets = known.own_names(erasure.targets)
    if all(t in known.styles for t in targets):
        return "glyphs-styles"
    return "glyphs-unsafe" if set(targets) == set(known.unsafe) else "glyphs-objects"


def check_target(name: str, model: Model, erasure: Erasure) -> float | None:
    """How often the untouched model draws the target, with a warning where it seldom does.

    None for a model without a world, and for a target that its judges do not know.
    """
    bundle = bundle_of(name)
    if bundle is None:
        return None
    from ..evaluation.evaluate import Settings, measure_target_rate
    from ..scorers import build_scorers

    known = world.load(bundle)
    try:
        suite = build(suite_for(erasure, known), erasure, known, per_group=LOOK, only=("target",))
    except ValueError as error:
        warn(f"whether {name} draws the target can't be measured: {error}")
        return None
    asks = suite.rows[0].asks
    judges = [s for s in build_scorers(bundle, known.backgrounds) if s.question == asks]
    rows = suite.rows[:: max(1, len(suite.rows) // LOOK)][:LOOK]
    seen = measure_target_rate(model, rows, judges, Settings())
    if seen.value is not None and seen.value < ENOUGH:
        what = ", ".join(erasure.targets)
        warn(
            f"{name} draws {what} in only {seen.value:.0%} of {seen.n} pictures before anything is erased "
            f"(95 % interval {seen.low:.0%} to {seen.high:.0%}); erasing it will show little"
        )
    return seen.value
