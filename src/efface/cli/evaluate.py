"""`efface evaluate`: draw a suite with and without an edit, and judge it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro

from ..files import check_folder
from .console import print_result, show_progress, tell_suite
from .loading import Loading, Sampling

if TYPE_CHECKING:
    from ..records.report import Record


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Draw a suite with the untouched base and under an edit, judge every picture, and write the rates."""

    kept: ClassVar[str] = "finished pictures and scores are kept in --out; the same command continues from there"
    example: ClassVar[str] = (
        "efface evaluate --model glyphs --edit cat.safetensors --suite glyphs-objects --out out/cat"
    )
    model: str
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id."""
    edit: Path
    """The edit to judge."""
    out: Path
    """Folder for pictures, scores and report.json; an evaluation that was stopped there is continued."""
    suite: str = ""
    """Name of the suite (`efface list suites`), or a file of prompts (.csv, .json, .txt, .parquet); by default the
    protocol's, or the one that suits the model, if it comes with any."""
    asks: str = ""
    """What all rows of a suite's file ask for: a target, object:TARGET or style:TARGET, or captions for nothing. By
    default this is read from its columns, or from the names in its prompts."""
    protocol: str = ""
    """A published way to evaluate, with its suite, scorers and aggregates: esr-psr, ner, canvas or ddpm-class."""
    per_group: int | None = None
    """Number of pictures in each group of the suite, instead of the suite's own numbers."""
    group: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A group of the suite to evaluate; repeat the flag for several. All by default."""
    scorer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A scorer to ask: one that comes with the model, by name, or any KIND[:FOLDER_OR_HUB_ID][,SETTING=VALUE], such as
    classifier:microsoft/resnet-50 or nudenet,threshold=0.6 (`efface list scorers`); repeat the flag for several. All
    that come with the model by default."""
    attacks: Literal["none", "standard"] = "none"
    """Attacks to make on the edited model afterwards, with their controls; `efface attack` has more settings."""
    images: Path | None = None
    """Folder for the pictures; evaluations that share one draw the base once. OUT/images by default."""
    scorer_timeout: float = 600.0
    """Time limit in seconds for one call of a scorer. Pictures without an answer by then are unscored, and are
    counted as such."""
    track: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Where the rates are also logged: tensorboard (extra `track`), wandb or another of accelerate's trackers; repeat
    the flag for several."""
    track_dir: Path = Path("runs")
    """Folder for trackers that write files."""
    json: bool = False
    """Print the result as JSON."""
    drawing: Sampling = field(default_factory=Sampling)
    loading: Loading = field(default_factory=Loading)

    def run(self) -> None:
        check_folder(self.out)
        from ..api.evaluating import evaluate

        with show_progress() as report:
            record = evaluate(
                self.loading.open_model_later(self.model),
                self.edit,
                self.out,
                self.suite,
                asks=self.asks,
                scorers=self.scorer,
                protocol=self.protocol,
                per_group=self.per_group,
                groups=self.group,
                images=self.images,
                attacks=self.attacks,
                strength=self.drawing.strength,
                steps=self.drawing.steps,
                guidance=self.drawing.guidance,
                sampler=self.drawing.sampler,
                scorer_timeout=self.scorer_timeout,
                progress=report,
                on_suite=tell_suite,
                track=self.track,
                track_dir=self.track_dir,
            )
        path = self.out / "report.json"
        print_result({"report": str(path), **summarise(record)}, self.json, f"{format_headlines(record)}\n{path}")


def summarise(record: Record) -> dict[str, Any]:
    """Returns headline rates and alarms as data for JSON."""
    heads = [m.model_dump() for m in record.list_headlines()]
    return {"targets": list(record.targets), "headlines": heads, "alarms": [a.model_dump() for a in record.alarms]}


def format_headlines(record: Record) -> str:
    """Writes headline rates with intervals, and alarms, as text."""
    from ..reporting.wording import METRICS, format_estimate

    lines = [f"alarm: {a.name}: {a.raised_when}. {a.do}" for a in record.alarms]
    for m in record.list_headlines():
        over = "" if m.threshold is None else f" over {m.threshold:g}"
        name = METRICS.get(m.metric, m.metric) + over
        lines.append(
            f"{name + ', ' + m.group:<28} {format_estimate(m.edited, m.unit)}   base {format_estimate(m.base, m.unit)}"
        )
    return "\n".join(lines)
