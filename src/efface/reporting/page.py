"""The report: one HTML file that needs no network, from evaluations, attacks and published result files.

Beside PAGE.html there is PAGE_files/: every picture at full size, `report.json` (the content of the page as data) and
`rows.parquet` (a row a picture, of all evaluations). The page itself holds thumbnails and data, and works without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from ..compliance.gate import RuleResult
from ..evaluation.published import Published
from ..files import new_folder, write_whole
from ..records.attacks import AttackMeasure, AttackRecord
from ..records.basis import read_results
from ..records.report import Measure, Record
from . import data, gallery
from .beside import list_beside, plot_published
from .boxes import AlarmBox, group_alarms
from .compared import build_comparisons
from .data import make_claims
from .gallery import Gallery
from .history import History, build_histories
from .svg import Curve, draw_climbs, plot_thresholds
from .template import make_environment
from .verdict import ReportVerdict, RuleInWords, build_verdict, find_worst_attack
from .wording import format_estimate, format_number, name_method, pick_worst_outcome

__all__ = ["format_estimate", "format_number", "make_claims", "write_page"]

BLOCK = 256
"""The number of thumbnails in one script element, which is read when one of them is first shown."""


@dataclass(frozen=True)
class Card:
    """A headline number, with the results of the policy's rules on it."""

    measure: Measure
    rules: Sequence[RuleInWords]

    @property
    def outcome(self) -> str:
        return pick_worst_outcome([r.outcome for r in self.rules])


@dataclass(frozen=True)
class Part:
    """One evaluation of the report."""

    title: str
    record: Record
    gallery: Gallery
    proof: Sequence[int]
    """The pairs at the top of the page, by their places in the gallery."""
    cards: Sequence[Card]
    verdict: ReportVerdict
    robust: Sequence[RuleInWords]
    """The results of the rules on attacks."""
    attacks: AttackRecord | None
    """The attacks made beside the evaluation."""
    alarms: Sequence[AlarmBox]
    curves: Sequence[Curve]
    history: Sequence[History]

    def list_by_judge(self) -> list[Measure]:
        return [m for m in self.record.measures if not self.record.comes_first(m)]

    @property
    def worst_attack(self) -> AttackMeasure | None:
        return find_worst_attack(self.attacks)


@dataclass(frozen=True)
class Attacked:
    """The attacks on one edit."""

    title: str
    record: AttackRecord
    gallery: Gallery
    curves: Markup | None
    alarms: Sequence[AlarmBox]


def write_page(
    folders: Sequence[Path],
    out: Path,
    per_group: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    published: Sequence[Published] = (),
) -> Path:
    """Writes the report of these evaluations.

    Args:
        folders: folders of evaluations, of attacks, or of both.
        out: the page; pictures at full size and the data go to a folder beside it.
        per_group: the number of pairs of pictures of each group; all by default.
        progress: called with the number of thumbnails made, and their total.
        published: published results, which are shown beside the report's own.

    Raises:
        FileNotFoundError, ValueError: a folder has no finished evaluation or one of an unknown version, a picture is
            damaged, or there is a folder beside the page that no report has made.
    """
    if not folders and not published:
        raise ValueError("no evaluation to report on; give the --out of at least one `efface evaluate`")
    files = out.with_name(f"{out.stem}_files")
    data.check_ours(out, files)
    results = {folder: read_results(folder) for folder in folders}
    attacks = {folder: found.attacks for folder, found in results.items() if found.attacks}
    judged = {folder: found.evaluation for folder, found in results.items() if found.evaluation}
    parts = [_build_part(record, folder, per_group, attacks.get(folder)) for folder, record in judged.items()]
    attacked = [_read_attacked(record, folder) for folder, record in attacks.items()]
    galleries = [p.gallery for p in (*parts, *attacked)]
    pictures = gallery.collect_images(galleries)
    thumbnails = gallery.make_thumbnails(list(pictures.values()), progress or (lambda i, n: None))
    records = [(p.title, p.record) for p in parts]
    whole = data.build_page_data(records, [(a.title, a.record) for a in attacked], published)
    page = (
        make_environment()
        .get_template("page.html")
        .render(
            title="; ".join(dict.fromkeys([*(p.title for p in (*parts, *attacked)), *(p.name for p in published)])),
            parts=parts,
            attacked=attacked,
            published=published,
            beside=list_beside(published, records),
            published_curves=plot_published(published),
            sets=build_comparisons(records) if len(parts) > 1 else [],
            glyphs=any(r.drawing.model.startswith("glyphs") for r in (*judged.values(), *attacks.values())),
            files=quote(files.name),
            thumbnails=["\n".join(thumbnails[i : i + BLOCK]) for i in range(0, len(thumbnails), BLOCK)],
            data=_build_data(galleries, list(pictures), quote(files.name)),
        )
    )
    _write_beside(files, whole, data.join_rows([p.title for p in parts], list(judged)), list(pictures.values()))
    return write_whole(out, page)


def _build_part(record: Record, folder: Path, per_group: int | None, attacks: AttackRecord | None) -> Part:
    verdict = build_verdict(record, attacks)
    cards = [Card(m, [r for r in verdict.rules if _concerns(r.finding, m)]) for m in record.list_headlines()]
    shown = gallery.build_evaluation_gallery(record, folder, per_group)
    return Part(
        title=build_title(record),
        record=record,
        gallery=shown,
        proof=gallery.pick_proof(shown),
        cards=cards,
        verdict=verdict,
        robust=[r for r in verdict.rules if r.finding.metric == "robust"],
        attacks=attacks,
        alarms=group_alarms(record.alarms),
        curves=plot_thresholds(record),
        history=build_histories(record.history),
    )


def _concerns(finding: RuleResult, m: Measure) -> bool:
    """Whether a rule is about this number, its base, or its drop."""
    return finding.metric.partition("_")[0] == m.metric and finding.group == m.group and finding.judge == m.judge


def _read_attacked(record: AttackRecord, folder: Path) -> Attacked:
    lines = {t.attack: t.curve for t in record.measures if t.condition == "target" and len(t.curve) > 1}
    plot = draw_climbs(lines, "attack success rate") if lines else None
    return Attacked(
        build_title(record), record, gallery.build_attack_gallery(record, folder), plot, group_alarms(record.alarms)
    )


def build_title(record: Record | AttackRecord) -> str:
    strength = "" if record.drawing.strength == 1 else f" at strength {record.drawing.strength:g}"
    return f"{name_method(record.method)} on {', '.join(record.targets)}{strength}"


def _build_data(galleries: Sequence[Gallery], pictures: Sequence[str], files: str) -> dict[str, Any]:
    """The data for the page's script."""
    numbers = {name: i for i, name in enumerate(pictures)}
    return {"files": files, "block": BLOCK, "pictures": pictures, "galleries": [g.to_data(numbers) for g in galleries]}


def _write_beside(files: Path, whole: data.PageData, rows: bytes | None, pictures: Sequence[Path]) -> None:
    """Makes the folder beside the page, first under another name; it replaces that of an earlier report."""
    with new_folder(files, replace=True) as made:
        gallery.copy_images(pictures, made)
        if rows:
            write_whole(made / "rows.parquet", rows)
        write_whole(made / "report.json", whole.model_dump_json(indent=1) + "\n")
