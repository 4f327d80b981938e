"""The demonstration behind `efface demo`: one erasure on a glyphs model, judged, with a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..catalog import METHODS
from ..concept import Erasure
from ..files import check_folder
from ..suites import world
from ..suites.rows import build
from ..suites.world import locate
from .erasing import erase, load
from .memory import with_memory_advice
from .progress import Progress, show_progress
from .resources import choose_suite

if TYPE_CHECKING:
    from ..planning.plan import Plan
    from ..records.report import Record
    from ..reporting.verdict import ReportVerdict
    from ..suites.spec import Suite
    from ..suites.world import World


@dataclass(frozen=True)
class Demonstration:
    """The results of a demonstration."""

    record: Record
    verdict: ReportVerdict
    page: Path


@with_memory_advice
def demonstrate(
    target: str = "cat",
    out: str | Path = "out/demo",
    *,
    method: str = "surgical",
    anchor: str = "",
    model: str = "glyphs",
    pictures: int = 160,
    progress: Progress = None,
    on_suite: Callable[[Suite], None] | None = None,
    on_plan: Callable[[Plan], None] | None = None,
) -> Demonstration:
    """Erases a concept from a glyphs model, judges the result, and writes a report with pictures.

    Args:
        target: a thing or a style that the model draws.
        out: the folder for the edit, the pictures and report.html.
        method: the method's name.
        anchor: the thing that takes the target's place, if the method uses one; by default another of its kind.
        model: a glyphs model.
        pictures: the number of pictures of the target, of its neighbours and of unrelated things, each with and without
            the edit.
        progress: as in `evaluate`.
        on_suite: called with the suite before anything starts.
        on_plan: called with the memory plan of the training.

    Returns:
        The evaluation's record, the verdict in words, and the report's file.

    Raises:
        ValueError: the target, the method, the anchor or the number can't work.
        FileNotFoundError: the model is no glyphs model: it has no file world.json, which says what it can draw.
    """
    folder, bundle = Path(out), locate(model)
    known = world.load(bundle)
    targets = known.expand((target,))
    erasure = Erasure(targets, anchor=anchor or _find_anchor(method, targets, known))
    name = choose_suite(erasure, known)
    groups = ("target", "style", "unseen") if name == "glyphs-styles" else ("target", "neighbour", "unseen")
    suite = build(name, erasure, known, sizes=dict.fromkeys(groups, pictures), only=groups)
    check_folder(folder)
    from ..evaluation.evaluate import evaluate
    from ..reporting.page import write_page
    from ..reporting.verdict import build_verdict
    from ..scorers import build_scorers

    if on_suite:
        on_suite(suite)
    opened, edit = load(model), folder / "edit.safetensors"
    where = folder / f"evaluation-{name}"
    with show_progress(progress) as report:
        erase(opened, erasure, method, progress=report, on_plan=on_plan).save(edit)
        judges = build_scorers(bundle, known.backgrounds)
        (where / "protocol.json").unlink(missing_ok=True)  # another target's would refuse this one
        record = evaluate(opened, edit, suite, judges, where, image_store=folder / "images", on_progress=report)
    return Demonstration(record, build_verdict(record), write_page([where], folder / "report.html"))


def _find_anchor(method: str, targets: tuple[str, ...], known: World) -> str:
    """The first other thing of the kind of a single target, where the method uses an anchor; else ""."""
    used = getattr(METHODS.get(method), "uses_anchor", False)
    alike = known.list_siblings(targets) if used and len(targets) == 1 and targets[0] in known.names else ()
    return alike[0] if alike else ""
