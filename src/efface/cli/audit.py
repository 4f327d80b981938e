"""`efface audit`: what an edit damaged most, found by search and confirmed by drawing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import tyro

from ..files import check_folder
from ..plurals import write_count
from .console import print_result, show_progress
from .loading import Drawing, Loading

if TYPE_CHECKING:
    from ..records.audit import Audit, AuditedWord
    from ..records.report import Estimate


@dataclass(frozen=True, kw_only=True)
class AuditCommand:
    """Search a vocabulary for the words that an edit damaged most, and draw them before and after."""

    kept: ClassVar[str] = "finished pictures are kept in --out; the same command continues from there"
    example: ClassVar[str] = "efface audit --model glyphs --edit cat.safetensors --out out/cat-audit"
    model: str
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id."""
    edit: Path
    """The edit to audit."""
    out: Path
    """Folder for audit.json, audit.png and the pictures; pictures that are there already are not drawn again."""
    vocabulary: Path | None = None
    """A file of words to search, one on each line. By default the most common words of the model's tokenizer, and the
    concepts known for the model."""
    worst: int = 12
    """Number of most damaged words that are drawn."""
    controls: int = 6
    """Number of words taken at random that are drawn for comparison."""
    count: int = 8
    """Pictures of each word, drawn without and with the edit."""
    states: int = 4
    """Number of start noises in the search."""
    points: int = 4
    """Number of timesteps in the search, spread evenly over the trajectory."""
    space: Literal["x0", "eps"] = "x0"
    """Whether damage is measured as a distance between predicted pictures or between predicted noises."""
    template: str = "a picture of a {}"
    """Prompt by which a word is drawn; {} stands for the word."""
    near: float = 0.02
    """Share of the vocabulary that is marked as possible synonyms of a target: the words nearest to it."""
    scorer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A judge of objects or a CLIP, as in `efface evaluate` (clip:openai/clip-vit-base-patch32); repeat the flag for
    several. By default those that come with the model; without a judge, only the change of the pictures is reported."""
    seed: int = 0
    """Seed of the start noises and of the random words."""
    json: bool = False
    """Print the result as JSON."""
    drawing: Drawing = field(default_factory=Drawing)
    loading: Loading = field(default_factory=Loading)

    def run(self) -> None:
        check_folder(self.out)
        from ..api.auditing import audit

        fields = ("worst", "controls", "count", "states", "points", "space", "template", "near", "seed")
        with show_progress() as report:
            found = audit(
                self.loading.open_model_later(self.model),
                self.edit,
                self.out,
                vocabulary=self.vocabulary or (),
                scorers=self.scorer,
                progress=report,
                **{name: getattr(self, name) for name in fields},
                **vars(self.drawing),
            )
        where = self.out / "audit.json"
        print_result(
            {"audit": str(where), **found.model_dump(mode="json")}, self.json, f"{format_table(found)}\n{where}"
        )


def format_table(found: Audit) -> str:
    """Writes the words that were drawn, one on each line."""
    lines = [
        f"{write_count(len(found.ranking), 'word was', 'words were')} searched by {found.measure}; the most damaged "
        "and random others were drawn:"
    ]
    width = max(len(f.word) for f in found.findings)
    lines += [_format_line(f, width) for f in found.findings]
    lines.append(f"pictures of the worst changed by {_format_interval(found.worst)}")
    if found.controls:
        lines[-1] += f", those of words taken at random by {_format_interval(found.controls)}"
    lines += [f"left open: {way}" for way in found.open_paths]
    return "\n".join(lines)


def _format_line(f: AuditedWord, width: int) -> str:
    said = []
    for m in f.measures:
        form, name = ("{:.0%}", "shown") if m.metric == "psr1" else ("{:.2f}", "CLIP")
        before, after = ("none" if e.value is None else form.format(e.value) for e in (m.base, m.edited))
        said.append(f"{name} {before} -> {after}")
    note = ("lost  " if f.lost else "") + ("near the target" if f.near else "")
    return (
        f"  {f.rank:>4}. {f.word:<{width}}  {f.part:<8} {f.change.value:>6.1%}  {', '.join(said):<40} {note}".rstrip()
    )


def _format_interval(e: Estimate) -> str:
    return f"{e.value:.1%} (95 % interval {e.low:.1%} to {e.high:.1%}, {write_count(e.n, 'word')})"
