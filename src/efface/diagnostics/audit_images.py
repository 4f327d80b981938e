"""The second half of an audit: words drawn before and after, judged, and laid out on one sheet."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..edits.edit import Edit
from ..evaluation import images as pictures
from ..evaluation import judging
from ..evaluation.evaluate import Settings, describe_drawing
from ..evaluation.metrics import measure_rows
from ..functional.rates import bootstrap, cluster_means
from ..models.base import Model
from ..records.audit import AuditedWord, ImagePair
from ..records.report import Drawing, Estimate, Measure
from ..scorers import Judge
from ..scorers.base import Score, Scorer
from ..suites.spec import Row
from ..suites.world import World

Progress = Callable[[str, int, int], None]
FRESH = 10_000
"""Added to the search's seeds, so that a word is confirmed on noise that did not choose it."""
COLUMNS = 4
"""Pictures of a word on the sheet, before and after."""
SIDE = 96
MARGIN = 8


def build_rows(word: str, template: str, count: int, seed: int, known: World | None) -> list[Row]:
    """The rows of a word: judged as a thing where it is one of the world's, by the prompt alone where not."""
    own = known.own_names([word])[0] if known else ""
    thing = own if known and own in known.names else ""
    return [
        Row(
            id=f"{word}/{i:03d}",
            prompt=template.format(word),
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
    """What was drawn of all words, and what judges said of it."""

    drawing: Drawing
    table: judging.ScoreTable
    paths: Mapping[str, Mapping[str, str]]
    """who -> row's id -> picture within the audit's folder"""
    change: Sequence[float]
    """Of each row."""

    def facts(self, word: str) -> dict[str, Any]:
        """The fields of a word's Finding that drawing gives."""
        rows = [i for i, r in enumerate(self.table.rows) if r.concept == word]
        first = self.table.rows[rows[0]]
        pairs = [
            ImagePair(seed=r.seed, base=self.paths["base"][r.id], edited=self.paths["edited"][r.id])
            for r in (self.table.rows[i] for i in rows)
        ]
        return {
            "thing": first.thing,
            "change": judging.estimate([self.change[i] for i in rows]),
            "measures": tuple(self._measures(word, first.thing, rows)),
            "pictures": tuple(pairs),
        }

    def _measures(self, word: str, thing: str, rows: Sequence[int]) -> list[Measure]:
        table = self.table
        out = []
        if thing and table.judges("object"):
            out.append(measure_rows(table, "psr1", f"shown in top 1: {thing}", word, "all", rows, table.success))
        for clip in table.judges("match")[:1]:
            value = partial(_value, table, clip)
            out.append(measure_rows(table, "clip", "CLIP similarity to the prompt", word, "all", rows, value))
        return out


def _value(table: judging.ScoreTable, judge: str, variant: str, i: int) -> float | None:
    return table.scores[variant][judge][i].value


def draw_and_judge(
    model: Model,
    edit: Edit,
    sha256: str,
    rows: Sequence[Row],
    scorers: Sequence[Judge],
    out: Path,
    settings: Settings,
    on_progress: Progress,
) -> DrawnWords:
    """Draw the rows with the base and under the edit, into `out`/images, and ask the scorers.

    Args:
        sha256: of the edit's file.
    """
    image_store = out / "images"
    base = describe_drawing(model, settings, "")
    edited = describe_drawing(model, settings, sha256)
    paths = {
        "base": pictures.draw_images(model, rows, base, image_store, lambda i, n: on_progress("drawing the base", i, n))
    }
    with edit.apply(model, settings.strength):
        paths["edited"] = pictures.draw_images(
            model, rows, edited, image_store, lambda i, n: on_progress("drawing under the edit", i, n)
        )
    single = [s for s in scorers if isinstance(s, Scorer)]
    scores: dict[str, dict[str, list[Score]]] = {
        variant: {
            s.name: judging.score_images(
                s, rows, paths[variant], paths["base"], image_store, out / "scores", model.resolution
            )
            for s in single
        }
        for variant in judging.VARIANTS
    }
    change = [_change(image_store / paths["base"][r.id], image_store / paths["edited"][r.id]) for r in rows]
    within = {variant: {key: f"images/{path}" for key, path in found.items()} for variant, found in paths.items()}
    return DrawnWords(edited, judging.ScoreTable(rows, single, scores), within, change)


def _change(one: Path, other: Path) -> float:
    a, b = (np.asarray(Image.open(p).convert("RGB"), dtype=np.float64) for p in (one, other))
    return float(np.abs(a - b).mean() / 255)


def mean_over_words(findings: Sequence[AuditedWord]) -> Estimate:
    """The mean change of words, each weighing the same; the interval resamples words."""
    clusters = {f.word: [f.change.value] for f in findings}
    means = cluster_means(clusters)
    low, high = bootstrap(clusters) or (0.0, 1.0)
    return Estimate(value=sum(means) / len(means), low=low, high=high, n=len(means), unscored=0)


def draw_sheet(findings: Sequence[AuditedWord], out: Path) -> bytes:
    """A PNG: a line a word, its first pictures before on the left and after on the right."""
    columns = min(COLUMNS, max(len(f.pictures) for f in findings))
    half = columns * (SIDE + 2)
    large, small = ImageFont.load_default(14), ImageFont.load_default(11)
    said = [_said(finding) for finding in findings]
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
                with Image.open(out / path) as picture:
                    page.paste(picture.convert("RGB").resize((SIDE, SIDE)), (label + side + column * (SIDE + 2), top))
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()


def _said(finding: AuditedWord) -> list[str]:
    """What stands below a word on the sheet."""
    lines = [f"{finding.part}, {finding.rank}. of the search", *(["near the target"] if finding.near else [])]
    for m in finding.measures:
        if m.base.value is not None and m.edited.value is not None:
            form = "{:.0%} -> {:.0%} shown" if m.metric == "psr1" else "CLIP {:.2f} -> {:.2f}"
            lines.append(form.format(m.base.value, m.edited.value))
    return [*lines, f"changed by {finding.change.value:.1%}"]
