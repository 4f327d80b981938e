"""The second half of an audit: draws words before and after the edit, judges them, and makes one sheet of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..edits.edit import Edit
from ..evaluation import judging
from ..evaluation.drawing import Drawings, Progress, draw_variants
from ..evaluation.estimates import estimate
from ..evaluation.images import ImageSet
from ..evaluation.metrics import Label, measure_rows
from ..files import open_picture
from ..functional.rates import bootstrap, cluster_means
from ..models.base import Model
from ..records.audit import AuditedWord, ImagePair
from ..records.report import Drawing, Estimate, Measure
from ..scorers import Judge
from ..suites.spec import Row
from ..suites.world import World

FRESH = 10_000
"""The offset from the search's seeds, so that words are drawn from noise that the search did not use."""
COLUMNS = 4
"""The number of a word's pictures on the sheet, both before and after."""
SIDE = 96
MARGIN = 8


def build_rows(word: str, template: str, count: int, seed: int, known: World | None) -> list[Row]:
    """The rows of a word: judged as a thing if it is one of the world's, otherwise by the prompt alone."""
    own = known.spell_names([word])[0] if known else ""
    thing = own if known and own in known.names else ""
    return [
        Row(
            id=f"{word}/{i:03d}",
            prompt=template.replace("{}", word),
            seed=seed + FRESH + i,
            group="audit",
            role="keep",
            asks="object" if thing else "match",
            concept=word,
            counts=(thing,) if thing else (),
            thing=thing,
        )
        for i in range(count)
    ]


@dataclass(frozen=True)
class DrawnWords:
    """The pictures of all words, with the judges' answers."""

    drawing: Drawing
    table: judging.ScoreTable
    images: ImageSet
    change: Sequence[float]
    """The change of each row's picture."""

    def collect_facts(self, word: str) -> dict[str, Any]:
        """The fields of a word's `AuditedWord` that come from its pictures."""
        rows = [i for i, r in enumerate(self.table.rows) if r.concept == word]
        first = self.table.rows[rows[0]]
        pairs = [
            ImagePair(seed=r.seed, base=self._build_path("base", r), edited=self._build_path("edited", r))
            for r in (self.table.rows[i] for i in rows)
        ]
        return {
            "thing": first.thing,
            "change": estimate([self.change[i] for i in rows]),
            "measures": tuple(self._measure(word, first.thing, rows)),
            "pictures": tuple(pairs),
        }

    def _build_path(self, variant: str, row: Row) -> str:
        """The picture's path within the audit's folder."""
        return f"{self.images.store.name}/{self.images.paths[variant][row.id]}"

    def _measure(self, word: str, thing: str, rows: Sequence[int]) -> list[Measure]:
        table = self.table
        out = []
        if thing and table.list_judges("object"):
            label = Label("psr1", f"shown in top 1: {thing}", word)
            out.append(measure_rows(table, label, rows, table.find_success))
        for clip in [s for s in table.scorers if s.question == "match"][:1]:
            value = partial(_find_value, table, clip.name)
            out.append(measure_rows(table, Label("clip", clip.title, word), rows, value, clip.share))
        return out


def _find_value(table: judging.ScoreTable, judge: str, variant: str, i: int) -> float | None:
    return table.scores[variant][judge][i].value


def draw_and_judge(
    model: Model,
    edit: Edit,
    rows: Sequence[Row],
    drawings: Drawings,
    scorers: Sequence[Judge],
    out: Path,
    on_progress: Progress,
) -> DrawnWords:
    """Draws the rows with the base and the edited model into `out`/images, and scores them."""
    images = draw_variants(model, edit, rows, drawings, out / "images", on_progress)
    table = judging.score_all(scorers, images, out / "scores")
    pairs = [(images.store / images.paths["base"][r.id], images.store / images.paths["edited"][r.id]) for r in rows]
    return DrawnWords(drawings.edited, table, images, [_find_change(before, after) for before, after in pairs])


def _find_change(one: Path, other: Path) -> float:
    a, b = (np.asarray(open_picture(p), dtype=np.float64) for p in (one, other))
    return float(np.abs(a - b).mean() / 255)


def average_over_words(findings: Sequence[AuditedWord]) -> Estimate:
    """The mean change of words, with equal weights; the interval resamples words."""
    clusters = {f.word: [f.change.value] for f in findings}
    means = cluster_means(clusters)
    low, high = bootstrap(clusters) or (0.0, 1.0)
    return Estimate(value=sum(means) / len(means), low=low, high=high, n=len(means), unscored=0)


def draw_sheet(findings: Sequence[AuditedWord], out: Path) -> bytes:
    """Draws a PNG with a line for each word: its first pictures before the edit on the left, after it on the right."""
    columns = min(COLUMNS, max(len(f.pictures) for f in findings))
    half = columns * (SIDE + 2)
    large, small = ImageFont.load_default(14), ImageFont.load_default(11)
    said = [_describe_word(finding) for finding in findings]
    widths = [small.getlength(text) for lines in said for text in lines] + [large.getlength(f.word) for f in findings]
    label = round(max(widths)) + 2 * MARGIN
    page = Image.new("RGB", (label + 2 * half + 3 * MARGIN, len(findings) * (SIDE + 6) + 24 + MARGIN), "white")
    pen = ImageDraw.Draw(page)
    pen.text((label, 4), "before", "black", large)
    pen.text((label + half + MARGIN, 4), "after", "black", large)
    for line, finding in enumerate(findings):
        top = 24 + line * (SIDE + 6)
        pen.text((MARGIN, top + 8), finding.word, "black", large)
        for place, text in enumerate(said[line]):
            pen.text((MARGIN, top + 28 + 14 * place), text, "#555555", small)
        for column, pair in enumerate(finding.pictures[:columns]):
            for side, path in ((0, pair.base), (half + MARGIN, pair.edited)):
                picture = open_picture(out / path).resize((SIDE, SIDE))
                page.paste(picture, (label + side + column * (SIDE + 2), top))
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()


def _describe_word(finding: AuditedWord) -> list[str]:
    """The lines below a word on the sheet."""
    lines = [f"{finding.part}, {finding.rank}. of the search", *(["near the target"] if finding.near else [])]
    for m in finding.measures:
        if m.base.value is not None and m.edited.value is not None:
            form = "{:.0%} -> {:.0%} shown" if m.metric == "psr1" else "CLIP {:.2f} -> {:.2f}"
            lines.append(form.format(m.base.value, m.edited.value))
    return [*lines, f"changed by {finding.change.value:.1%}"]
