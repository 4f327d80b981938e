"""`efface evaluate`: draw a suite with and without an edit, and judge it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from .console import progress, result, writable_folder

if TYPE_CHECKING:
    from ..evaluate import Record


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Draw a suite with the untouched base and under an edit, judge every picture, and write the rates."""

    model: str
    """"glyphs", or the pipeline folder of a model of the same make."""
    edit: Path
    """The edit to judge."""
    suite: str
    """Name of the suite; `efface list suites` lists them."""
    out: Path
    """Folder for pictures, scores and report.json; one that was begun is gone on with."""
    per_group: int | None = None
    """Pictures in each group of the suite instead of its own numbers."""
    group: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A group of the suite to evaluate; repeat the flag for several. All by default."""
    scorer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A scorer to ask, by name; repeat the flag for several. All that come with the model by default."""
    images: Path | None = None
    """Folder for the pictures; evaluations that share one draw the base once. OUT/images by default."""
    strength: float = 1.0
    """How much of the edit is applied."""
    steps: int | None = None
    """Sampling steps; the model's own number by default."""
    guidance: float | None = None
    """Guidance; the model's own by default."""
    device: str | None = None
    """Where to work; a GPU where there is one."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..suites import build, locate, spec, world

        spec(self.suite)
        bundle = locate(self.model)
        known = world.load(bundle)
        writable_folder(self.out)
        from .. import load
        from ..evaluate import Settings, evaluate, request_of, used_words
        from ..game import Edit
        from ..scorers import panel

        edit = Edit.load(self.edit)
        used = used_words(edit)
        suite = build(self.suite, request_of(edit), known, per_group=self.per_group, only=self.group, used=used)
        scorers = panel(bundle, known.backgrounds, self.scorer)
        model = load(self.model, self.device)
        settings = Settings(self.steps, self.guidance, self.strength)
        with progress() as tell:
            record = evaluate(model, self.edit, suite, scorers, self.out, settings, self.images, tell)
        path = self.out / "report.json"
        result({"report": str(path), **summary(record)}, self.json, f"{headlines(record)}\n{path}")


def summary(record: Record) -> dict[str, Any]:
    """Headline rates and alarms, for a program."""
    heads = [m.model_dump() for m in record.heads()]
    return {"targets": list(record.targets), "headlines": heads, "alarms": [a.model_dump() for a in record.alarms]}


def headlines(record: Record) -> str:
    """Headline rates with intervals and alarms, for a person."""
    from ..report import estimate

    lines = [f"alarm: {a.name}: {a.raised_when}. {a.do}" for a in record.alarms]
    for m in record.heads():
        name = {"esr1": "erased (ESR-1)", "psr1": "kept (PSR-1)"}[m.metric]
        lines.append(f"{name + ', ' + m.group:<28} {estimate(m.edited, m.metric)}   base {estimate(m.base, m.metric)}")
    return "\n".join(lines)
