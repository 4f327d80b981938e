"""One straight pipe: suite -> pictures (base and edited, same seeds, same loop) -> scores -> rates.

A folder of an evaluation holds `protocol.json` (what was asked, written first), `images/`, `scores/`, and at the end
`rows.parquet` and `report.json`. Every stage goes on where it was stopped; the report of a run that was killed and
started again is the same, byte for byte.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..concept import Erasure
from ..edits.edit import Edit
from ..files import hash_file, write_whole
from ..models.base import Model
from ..models.trajectory import Sampler
from ..records.report import (
    FORMAT_VERSION,
    Drawing,
    Estimate,
    Measure,
    Record,
    SuitePart,
    compare,
    read,
)
from ..scorers import Judge
from ..scorers.base import Checked, Score, Scorer, SetScorer
from ..suites.spec import Row, Suite
from . import images as pictures
from . import judging, metrics, protocols, rows_table, set_metrics
from .alarms import alarms
from .protocols import Protocol

__all__ = [
    "Estimate",
    "Record",
    "Settings",
    "album_of",
    "draws_target",
    "evaluate",
    "read",
    "ready",
    "request_of",
    "used_words",
    "write_whole",
]

PACKAGES = ("efface", "torch", "diffusers", "transformers", "numpy", "pillow")
OPTIONAL = ("torchmetrics", "torchvision", "torch-fidelity", "nudenet", "onnxruntime")
HEADLINES = ("esr1/target", "psr1/neighbour", "psr1/style", "psr1/unseen")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """How pictures are drawn."""

    steps: int | None = None
    """Sampling steps; the model's own number by default."""
    guidance: float | None = None
    """Guidance; the model's own by default."""
    strength: float = 1.0
    """How much of the edit is applied."""
    sampler: Sampler = "own"
    """The scheduler: the model's own, or another on its noise levels."""


def evaluate(
    model: Model,
    edit_file: Path,
    suite: Suite,
    scorers: Sequence[Judge],
    out: Path,
    settings: Settings = Settings(),
    album: Path | None = None,
    progress: Progress | None = None,
    protocol: Protocol | None = None,
) -> Record:
    """Draw a suite with the untouched base and under an edit, judge every picture, and write the report's data.

    Args:
        out: folder for everything; one that holds the same evaluation is continued.
        album: where pictures lie, `out`/images by default; evaluations that share one draw the base once.
        progress: called with a stage's name, the pictures done, and their number.
        protocol: a declared one, whose own numbers are added; the suite is as it adjusted it.

    Raises:
        ValueError: an empty suite, two scorers of one name, one that can't judge these rows, a damaged edit or one of
            another base, steps that can't be, or `out` holds an evaluation with another protocol.
    """
    ready(scorers, suite, protocol)
    edit = Edit.load(edit_file)
    edit.check(model)
    album = album or out / "images"
    tell = progress or (lambda stage, done, total: None)
    base = describe_drawing(model, settings, "")
    edited = describe_drawing(model, settings, hash_file(edit_file))
    _agree(out, suite, edited, album, protocol)

    paths, by = {}, settings.sampler
    paths["base"] = pictures.draw(model, suite.rows, base, album, lambda i, n: tell("drawing the base", i, n), by)
    with edit.apply(model, settings.strength):
        paths["edited"] = pictures.draw(
            model, suite.rows, edited, album, lambda i, n: tell("drawing under the edit", i, n), by
        )
    table = _judge(scorers, suite.rows, paths, album, out / "scores", model.resolution, tell)
    found = metrics.measures(table, suite)
    found += set_metrics.measures(
        scorers,
        suite.rows,
        set_metrics.portions(suite, protocol.pools if protocol else ()),
        paths,
        album,
        out / "scores",
        model.resolution,
        lambda i, n: tell("comparing sets", i, n),
    )
    found += protocols.measures(protocol, table, suite) if protocol else []
    record = _record(edit, suite, scorers, found, edited, protocol)
    rows_table.write(out / "rows.parquet", paths, table)
    write_whole(out / "report.json", record.model_dump_json(indent=1) + "\n")
    return record


def ready(scorers: Sequence[Judge], suite: Suite, protocol: Protocol | None = None) -> None:
    """Raises ValueError or OSError, before anything is drawn, where the scorers can't judge the suite."""
    if not suite.rows:
        raise ValueError(f"suite {suite.spec.name} has no rows for {', '.join(suite.targets)}")
    if len({s.name for s in scorers}) < len(scorers):
        shared = ", ".join(s.name for s in scorers)
        raise ValueError(f"two scorers share a name: {shared}; give one another with …,name=NAME")
    largest = max(set_metrics.portions(suite, protocol.pools if protocol else ()), key=lambda p: len(p.rows)).rows
    for scorer in scorers:
        if isinstance(scorer, Checked):
            scorer.check(largest if isinstance(scorer, SetScorer) else suite.rows)


def _judge(
    scorers: Sequence[Judge],
    rows: Sequence[Row],
    paths: Mapping[str, Mapping[str, str]],
    album: Path,
    cache: Path,
    resolution: int,
    tell: Progress,
) -> judging.Table:
    """What every scorer of single pictures says of each."""
    single = [s for s in scorers if isinstance(s, Scorer)]
    scores: dict[str, dict[str, list[Score]]] = {who: {} for who in judging.WHO}
    total = len(single) * len(judging.WHO) * len(rows)
    for i, (scorer, who) in enumerate((s, w) for s in single for w in judging.WHO):

        def told(done: int, _: int, start: int = i * len(rows)) -> None:
            tell("judging", start + done, total)

        scores[who][scorer.name] = judging.score(
            scorer, rows, paths[who], paths["base"], album, cache, resolution, told
        )
    return judging.Table(rows, single, scores)


def draws_target(model: Model, rows: Sequence[Row], scorers: Sequence[Judge], settings: Settings) -> Estimate:
    """How often the untouched model draws what `rows` ask for: an erasure of what it does not draw shows nothing."""
    images = model.images(
        [r.prompt for r in rows],
        [r.seed for r in rows],
        steps=settings.steps,
        guidance=settings.guidance,
        sampler=settings.sampler,
    )
    return judging.estimate(judging.seen(scorers, images, rows, images))


def request_of(edit: Edit) -> Erasure:
    """The request that an edit answers, from its metadata."""
    asked = edit.meta.get("request") or {}
    if not asked.get("targets"):
        raise ValueError("the edit does not say what it erases; it was not made by `efface erase`")
    return Erasure(tuple(asked["targets"]), asked.get("anchor", ""), tuple(asked.get("keep", ())))


def used_words(edit: Edit) -> tuple[str, ...]:
    """The words that the fitting searched in: whatever they name was not unseen."""
    candidates = (edit.meta.get("notes") or {}).get("candidates") or {}
    return tuple(dict.fromkeys(word for words in candidates.values() for word in words))


def rows_digest(rows: Sequence[Row]) -> str:
    return pictures.digest([dataclasses.asdict(r) for r in rows])


def describe_drawing(model: Model, settings: Settings, edit: str) -> Drawing:
    """Everything on which this model's pictures depend beside prompt and seed; ValueError for steps that can't be."""
    defaults = model.defaults
    steps = defaults.steps if settings.steps is None else settings.steps
    model.timesteps(steps, settings.sampler)
    computed = str(model.compute or model.dtype).removeprefix("torch.")
    return Drawing(
        model=model.name,
        fingerprint=model.fingerprint(),
        decoder=model.decoder_digest(),
        edit=edit,
        strength=settings.strength,
        steps=steps,
        guidance=defaults.guidance if settings.guidance is None else settings.guidance,
        scheduler=type(model.scheduler(settings.sampler)).__name__,
        dtype=str(model.dtype).removeprefix("torch."),
        compute=computed if model.steady is None else f"{computed}, compiled",
        resolution=model.resolution,
    )


def packages() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *OPTIONAL):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found |= {name: "not installed"} if name in PACKAGES else {}
    return found


def _suite_part(suite: Suite) -> SuitePart:
    drawn = {g.name: g.title for g in suite.spec.groups if suite.group(g.name)}
    s = suite.spec
    return SuitePart(name=s.name, version=s.version, licence=s.licence, source=s.source, groups=drawn)


def album_of(folder: Path) -> Path:
    """Where the pictures of an evaluation lie."""
    return folder / json.loads((folder / "protocol.json").read_text(encoding="utf-8"))["images"]


def _agree(out: Path, suite: Suite, drawing: Drawing, album: Path, protocol: Protocol | None) -> None:
    """Write the protocol, or refuse a folder that holds another one: two protocols can't share their numbers."""
    path = out / "protocol.json"
    ours: dict[str, Any] = {"suite": _suite_part(suite).model_dump(), "rows": rows_digest(suite.rows)}
    ours |= {"drawing": drawing.model_dump(exclude={"model"}), "images": os.path.relpath(album, out)}
    ours |= {"protocol": protocol.part.model_dump() if protocol else None}
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged; give another --out, or remove that folder") from error
        if different := compare(before, ours, skip=("images",)):
            said = "; ".join(different[:5])
            raise ValueError(f"{path.parent} holds another evaluation ({said}); give another --out, or remove it")
    write_whole(path, json.dumps(ours, indent=1, sort_keys=True) + "\n")


def _record(
    edit: Edit,
    suite: Suite,
    scorers: Sequence[Judge],
    found: Sequence[Measure],
    drawing: Drawing,
    protocol: Protocol | None,
) -> Record:
    heads = (*(protocol.headlines if protocol else ()), *HEADLINES)
    there = {(m.metric, m.group) for m in found}
    request = request_of(edit)
    return Record(
        format="efface-report",
        version=FORMAT_VERSION,
        targets=suite.targets,
        anchor=request.anchor,
        keep=request.keep,
        method=str(edit.meta.get("method", "unknown")),
        arguments=dict(edit.meta.get("arguments", {})),
        suite=_suite_part(suite),
        rows=len(suite.rows),
        rows_digest=rows_digest(suite.rows),
        drawing=drawing,
        scorers={s.name: s.identity() for s in scorers},
        packages=packages(),
        rule=judging.RULE,
        measures=tuple(found),
        headlines=tuple(h for h in dict.fromkeys(heads) if tuple(h.split("/")[:2]) in there),
        alarms=alarms(found, {g.name: g.role for g in suite.spec.groups}),
        protocol=protocol.part if protocol else None,
        history=dict(edit.meta.get("notes") or {}),
        cost=dict(edit.meta.get("cost") or {}),
    )
