"""The content of a page as data: `report.json`, validated, with a version, and the rows of all its evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ..evaluation.published import Published
from ..evaluation.rows_table import read_rows_table
from ..files import read_json
from ..functional import rates
from ..records.attacks import AttackRecord
from ..records.report import Measure, Part, Record
from .wording import format_fact, name_method

FORMAT = "efface-page"
FORMAT_VERSION = 1


class Evaluation(Part):
    """One evaluation with its title on the page."""

    title: str
    record: Record


class Claim(Part):
    """A number of a method over several erasures; its interval resamples them."""

    method: str
    """The method, with its strength, and with those arguments that other evaluations of it have otherwise."""
    title: str
    judge: str
    unit: Literal["share", "number"]
    value: float
    interval: tuple[float, float] | None
    """None with fewer than `rates.LEAST_CLUSTERS` erasures, of which no interval can be resampled."""
    erasures: int


class Attacks(Part):
    """The attacks on one edit."""

    title: str
    record: AttackRecord


class PageData(Part):
    """`report.json` of a page."""

    format: Literal["efface-page"]
    version: int
    evaluations: tuple[Evaluation, ...]
    attacks: tuple[Attacks, ...]
    published: tuple[Published, ...]


def build_page_data(
    records: Sequence[tuple[str, Record]],
    attacks: Sequence[tuple[str, AttackRecord]] = (),
    published: Sequence[Published] = (),
) -> PageData:
    """Makes a page's data from evaluations and attacks with their titles."""
    return PageData(
        format=FORMAT,
        version=FORMAT_VERSION,
        evaluations=tuple(Evaluation(title=title, record=record) for title, record in records),
        attacks=tuple(Attacks(title=title, record=record) for title, record in attacks),
        published=tuple(published),
    )


def check_ours(page: Path, folder: Path) -> None:
    """Raises ValueError where a page, or the folder beside it, is there that no report has made: it would be replaced.

    A report is replaced without asking, because the evaluations that it is made of hold all of it.
    """
    if not (folder.exists() or page.exists()):
        return
    try:
        ours = read_json(folder / "report.json").get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        ours = False
    there = [page] if page.exists() else []
    there += [folder] if folder.exists() and any(folder.iterdir()) else []
    if there and not ours:
        raise ValueError(f"{there[-1]} is there and was not made by a report; move it, or give another --out")


def join_rows(titles: Sequence[str], folders: Sequence[Path]) -> bytes | None:
    """Joins the rows of evaluations to one parquet file, with their titles in the first column; None without rows."""
    if not folders:
        return None
    tables = []
    for title, folder in zip(titles, folders, strict=True):
        table = read_rows_table(folder)
        tables.append(table.add_column(0, "evaluation", pa.array([title] * table.num_rows, pa.string())))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(tables, promote_options="default"), sink)
    return sink.getvalue().to_pybytes()


def describe_method(record: Record) -> str:
    strength = record.drawing.strength
    name = name_method(record.method)
    return name if strength == 1 else f"{name} at strength {strength:g}"


def make_claims(records: Sequence[Record]) -> list[Claim]:
    """The headline numbers of each method over several erasures: their mean, with equal weights of erasures.

    Evaluations of one method are taken together only if its arguments are the same; the seeds of its training may
    differ. Numbers at different thresholds, or by different judges, are never taken together.
    """
    found: dict[tuple[Any, ...], dict[str, list[float | None]]] = {}
    first: dict[tuple[Any, ...], Measure] = {}
    for record, method in zip(records, _name_methods(records), strict=True):
        for m in record.list_headlines():
            key = (method, m.metric, m.group, m.threshold, m.judge)
            found.setdefault(key, {}).setdefault(", ".join(record.targets), []).append(m.edited.value)
            first.setdefault(key, m)
    out = []
    for key, clusters in found.items():
        means, m = rates.cluster_means(clusters), first[key]
        if len(means) > 1:
            interval = rates.bootstrap(clusters) if len(means) >= rates.LEAST_CLUSTERS else None
            told = {"title": m.title, "judge": m.judge, "unit": m.unit, "erasures": len(means)}
            out.append(Claim(method=key[0], value=math.fsum(means) / len(means), interval=interval, **told))
    return out


def _name_methods(records: Sequence[Record]) -> list[str]:
    """Each evaluation's method, by which methods with other arguments than their training's seed are told apart."""
    own = [{k: v for k, v in record.arguments.items() if k != "seed"} for record in records]
    named = [describe_method(record) for record in records]
    out = []
    for name, mine in zip(named, own, strict=True):
        others = [other for each, other in zip(named, own, strict=True) if each == name]
        differ = [
            k for k in sorted({k for other in others for k in other}) if any(o.get(k) != mine.get(k) for o in others)
        ]
        told = "; ".join(f"{k.replace('_', ' ')} {format_fact(mine.get(k))}" for k in differ)
        out.append(f"{name} ({told})" if told else name)
    return out
