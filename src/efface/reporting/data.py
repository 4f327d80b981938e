"""The content of a page as data: `report.json`, validated, with a version, and the rows of all its evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ..evaluation.published import Published
from ..evaluation.rows_table import read_rows_table
from ..files import read_json
from ..functional import rates
from ..records.attacks import AttackRecord
from ..records.report import Part, Record
from .wording import name_method

FORMAT = "efface-page"
FORMAT_VERSION = 1


class Evaluation(Part):
    """One evaluation with its title on the page."""

    title: str
    record: Record


class Claim(Part):
    """A rate of a method over several erasures; its interval resamples them."""

    method: str
    title: str
    value: float
    low: float
    high: float
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
    """The headline rates of a method over several erasures, with intervals that resample erasures."""
    by_rate: dict[tuple[str, str, str], dict[str, list[float | None]]] = {}
    titles: dict[tuple[str, str, str], str] = {}
    for record in records:
        for m in record.list_headlines():
            key = (describe_method(record), m.metric, m.group)
            by_rate.setdefault(key, {}).setdefault(", ".join(record.targets), []).append(m.edited.value)
            titles[key] = m.title
    out = []
    for key, clusters in by_rate.items():
        interval, means = rates.bootstrap(clusters), rates.cluster_means(clusters)
        if interval:
            mean = sum(means) / len(means)
            found = {"low": interval[0], "high": interval[1], "erasures": len(means)}
            out.append(Claim(method=key[0], title=titles[key], value=mean, **found))
    return out
