"""Finds what a request needs beside the edit: the model, its world and judges, the suite, and the edit's file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..concept import Erasure, check_phrases
from ..files import read_json
from ..plurals import write_count, write_percent
from ..suites import world
from ..suites.rows import build, spread
from ..suites.world import World, locate
from .progress import Report, report_nothing

if TYPE_CHECKING:
    from ..edits.edit import Edit
    from ..models.base import Model
    from ..scorers import Judge
    from ..suites.spec import Suite

LOOKING = "checking that the untouched model draws the target"
"""A stage: what the model does not draw can't be shown to be erased."""
ENOUGH = 0.5
"""The rate of the target in the base's pictures below which a warning is given before it is erased."""
LOOK = 24
"""The number of pictures for that rate."""


@dataclass(frozen=True)
class LazyModel:
    """A model by its name, which is opened after all checks that do not need it."""

    name: str
    open: Callable[[], Model]


def open_later(model: Model | LazyModel | str | Path, exact: bool = False) -> LazyModel:
    """Returns a model that is opened when it is needed.

    `exact` opens a named model in fp32 on the CPU, on whatever machine, because its weights are compared or added up.

    Raises:
        TypeError: it is neither a model nor a name.
        ValueError: it is a name that can't be a model's.
    """
    if isinstance(model, LazyModel):
        return model
    if isinstance(model, str | Path):
        from ..models.loading import check_model_name, load

        check_model_name(model)
        how = ("cpu", "fp32") if exact else (None, None)
        return LazyModel(str(model), lambda: load(str(model), *how))
    name = getattr(model, "name", None)
    if not (isinstance(name, str) and hasattr(model, "images")):
        raise TypeError(
            f"a model is what efface.load returns, or the name, folder or hub id of one; got a {type(model).__name__}"
        )
    return LazyModel(name, lambda: model)


def open_to_judge(opening: LazyModel) -> Model:
    """Opens the model, and makes networks that judge its pictures work on its device."""
    from ..scorers.base import judge_on

    opened = opening.open()
    judge_on(opened.device)
    return opened


def save_edit(edit: Edit | str | Path, out: Path) -> tuple[Edit, Path]:
    """The edit and its file; an edit that is only in memory is saved to `out`/edit.safetensors.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is damaged.
        FileExistsError: `out` holds another edit under that name.
    """
    from ..edits.edit import Edit

    if isinstance(edit, str | Path):
        return Edit.load(edit), Path(edit)
    if not isinstance(edit, Edit):
        raise TypeError(f"an edit is what efface.erase returns, or the file that it was saved to; got {edit!r}")
    file = out / "edit.safetensors"
    if file.is_file() and not edit.same_as(Edit.load(file)):
        raise FileExistsError(f"{file} holds another edit; give another folder, or remove that one")
    return edit, file if file.is_file() else edit.save(file)


def find_bundle(model: str) -> Path | None:
    """The folder with the model's world and judges, or None for a model other than glyphs."""
    try:
        return locate(model)
    except FileNotFoundError:
        return None


def find_world(model: str) -> World | None:
    """The things that a glyphs model can draw, or None for another model."""
    bundle = find_bundle(model)
    return world.load(bundle) if bundle else None


def expand(model: str, targets: tuple[str, ...]) -> tuple[str, ...]:
    """Replaces an umbrella word ("unsafe") among the targets by the things that it covers in the model's world."""
    known = find_world(model)
    return known.expand(targets) if known else targets


def check_request(model: str, targets: tuple[str, ...], keep: tuple[str, ...]) -> None:
    """Raises ValueError for several concepts in one text, and for a concept that is to go under one name and stay
    under another.
    """
    known = find_world(model)
    called = [name for thing in known.things for name in (thing.name, *thing.synonyms)] if known else []
    named = (*called, *read_classes(model))
    check_phrases(targets, "target", named)
    check_phrases(keep, "keep", named)
    own = dict(zip(known.spell_names(targets), targets, strict=True)) if known else {}
    for word, name in zip(keep, known.spell_names(keep), strict=True) if known else ():
        if name in own:
            raise ValueError(
                f"to be erased and kept at once: {own[name]} and {word} are two names of {name}; leave one of them out"
            )


def read_classes(model: str) -> tuple[str, ...]:
    """The names of a class-conditional model's classes, if its folder lists them."""
    file = Path(model) / "classes.json"
    listed = read_json(file) if file.is_file() else ()
    return tuple(name for name in listed if isinstance(name, str)) if isinstance(listed, list) else ()


def choose_suite(erasure: Erasure, known: World) -> str:
    """The suite that judges an erasure: classes, styles, everything unsafe, or objects."""
    if not known.styles:
        return "glyphs-classes"
    targets = known.spell_names(erasure.targets)
    if all(t in known.styles for t in targets):
        return "glyphs-styles"
    return "glyphs-unsafe" if set(targets) == set(known.unsafe) else "glyphs-objects"


def build_judges(
    model: str, suite: Suite | None, asked: Sequence[str | Judge] = (), known: World | None = None
) -> list[Judge]:
    """The scorers that are asked for, by name or as instances, or else those that come with the model.

    Raises:
        ValueError: words describe no scorer, or none is asked for and none comes with the model.
    """
    from ..scorers import build_scorers

    labels: dict[str, Sequence[str]] = {"object": suite.labels, "style": suite.labels} if suite else {}
    labels |= {"object": known.names, "style": known.styles} if known else {}
    grounds = known.backgrounds if known else {}
    asked = (asked,) if isinstance(asked, str) else tuple(asked)
    if not asked:
        return build_scorers(find_bundle(model), grounds, (), labels)
    found = [build_scorers(find_bundle(model), grounds, (s,), labels) if isinstance(s, str) else [s] for s in asked]
    return [scorer for some in found for scorer in some]


def check_target(name: str, model: Model, erasure: Erasure, report: Report = report_nothing) -> float | None:
    """The share of pictures in which the untouched model draws the target; warns where it is low.

    It is None for a model without a world, and for a target that its judges do not know.
    """
    known = find_world(name)
    if known is None:
        return None
    from ..scorers.base import judge_on

    judge_on(model.device)
    try:
        suite = build(choose_suite(erasure, known), erasure, known, per_group=LOOK, only=("target",))
    except ValueError as error:
        warnings.warn(f"whether {name} draws the target can't be measured: {error}", stacklevel=2)
        return None
    return warn_if_undrawn(model, erasure.targets, suite, build_judges(name, suite, (), known), report)


def warn_if_undrawn(
    model: Model, targets: Sequence[str], suite: Suite, judges: Sequence[Judge], report: Report = report_nothing
) -> float | None:
    """The share of a few of the suite's target pictures that show it on the untouched model; warns where it is low.

    It is None where no judge answers the question.
    """
    from ..evaluation.evaluate import Settings, measure_target_rate

    rows = spread(suite.select_group("target"), LOOK)
    able = [judge for judge in judges if rows and judge.question == rows[0].asks]
    if not able:
        return None
    report(LOOKING, 0, len(rows))
    seen = measure_target_rate(model, rows, able, Settings())
    report(LOOKING, len(rows), len(rows))
    if seen.value is not None and seen.value < ENOUGH:
        warnings.warn(
            f"{model.name} draws {', '.join(targets)} in only {write_percent(seen.value, ENOUGH)} of "
            f"{write_count(seen.n, 'picture')} "
            "before anything is "
            f"erased (95 % interval {seen.low:.0%} to {seen.high:.0%}): either it can't draw this, or the judges "
            f"({', '.join(judge.name for judge in able)}) do not recognise it; erasing it will show little",
            stacklevel=2,
        )
    return seen.value


def to_file_name(words: Sequence[str]) -> str:
    """Makes a file's name from words: letters, digits and hyphens."""
    return re.sub(r"[^\w]+", "-", "-".join(words).casefold()).strip("-") or "edit"
