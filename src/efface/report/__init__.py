"""The report: one HTML file that needs no network, made from the folders of one or several evaluations."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.parquet as pq
from PIL import Image

from ..evaluate import album_of
from ..evaluate.pictures import picture
from ..evaluate.record import Estimate, Measure, Record, read, write_whole
from ..functional import rates
from .plot import Point, scatter

PER_GROUP = 16
THUMBNAIL = 160
WORDS = {("erase", True): "erased", ("erase", False): "still shown", ("keep", True): "kept", ("keep", False): "lost"}


@dataclass(frozen=True)
class Pair:
    """A row drawn twice from one seed: by the untouched base and under the edit."""

    prompt: str
    seed: int
    verdict: str
    before: str
    after: str
    said_before: str
    said_after: str


@dataclass(frozen=True)
class Section:
    """One evaluation of the report."""

    title: str
    record: Record
    grids: dict[str, list[Pair]]


@dataclass(frozen=True)
class Claim:
    """A rate of a method over several erasures; its interval resamples them."""

    method: str
    title: str
    value: float
    low: float
    high: float
    erasures: int


def write(folders: Sequence[Path], out: Path) -> Path:
    """Write the report of these evaluations.

    Raises:
        FileNotFoundError, ValueError: a folder without a finished evaluation, or one of an unknown version.
    """
    if not folders:
        raise ValueError("no evaluation to report on; give the --out of at least one `efface evaluate`")
    records = [read(f) for f in folders]
    sections = [
        Section(_title(r), r, _grids(r, folder, album_of(folder))) for r, folder in zip(records, folders, strict=True)
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["estimate"] = estimate
    environment.filters["number"] = number
    page = environment.get_template("page.html")
    write_whole(out, page.render(sections=sections, plot=_plot(sections), claims=claims(records)))
    return out


def number(value: float | None, metric: str) -> str:
    """A rate as a percentage, a similarity as it is, None as a dash."""
    if value is None:
        return "—"
    return f"{value:.3f}" if metric == "clip" else f"{100 * value:.1f} %"


def estimate(e: Estimate, metric: str) -> str:
    """Value, interval and n in one line."""
    if e.value is None:
        return f"not judged (n = 0, {e.unscored} unscored)"
    interval = f"{number(e.low, metric)} to {number(e.high, metric)}"
    unscored = f", {e.unscored} unscored" if e.unscored else ""
    return f"{number(e.value, metric)} ({interval}; n = {e.n}{unscored})"


def claims(records: Sequence[Record]) -> list[Claim]:
    """What can be said of a method that was judged on several erasures: headline rates, resampled by erasure."""
    by_rate: dict[tuple[str, str, str], dict[str, list[float | None]]] = {}
    titles: dict[tuple[str, str, str], str] = {}
    for record in records:
        for m in record.heads():
            key = (record.method, m.metric, m.group)
            by_rate.setdefault(key, {}).setdefault(", ".join(record.targets), []).append(m.edited.value)
            titles[key] = m.title
    out = []
    for key, clusters in by_rate.items():
        interval, means = rates.bootstrap(clusters), rates.cluster_means(clusters)
        if interval:
            out.append(Claim(key[0], titles[key], sum(means) / len(means), *interval, len(means)))
    return out


def _title(record: Record) -> str:
    strength = "" if record.drawing.strength == 1 else f" at strength {record.drawing.strength:g}"
    return f"{record.method} on {', '.join(record.targets)}{strength}"


def _grids(record: Record, folder: Path, album: Path) -> dict[str, list[Pair]]:
    """Some pictures of every group, spread over its rows."""
    table = pq.read_table(folder / "rows.parquet").to_pylist()
    half = len(table) // 2
    pairs = list(zip(table[:half], table[half:], strict=True))
    grids: dict[str, list[Pair]] = {}
    for group in record.suite.groups:
        rows = [p for p in pairs if p[0]["group"] == group]
        step = max(1, len(rows) // PER_GROUP)
        grids[group] = [_pair(before, after, album) for before, after in rows[::step][:PER_GROUP]]
    return grids


def _pair(before: dict[str, Any], after: dict[str, Any], album: Path) -> Pair:
    verdict = WORDS.get((after["role"], after["success"]), "not judged")
    return Pair(
        prompt=after["prompt"],
        seed=after["seed"],
        verdict=verdict,
        before=thumbnail(album / before["picture"]),
        after=thumbnail(album / after["picture"]),
        said_before=_said(before),
        said_after=_said(after),
    )


def _said(line: dict[str, Any]) -> str:
    """What the judges of the row's question answered first."""
    first = [v[0] for k, v in line.items() if k.endswith(".answer") and k.startswith(line["asks"]) and v]
    return " / ".join(dict.fromkeys(first)) or "nothing"


def thumbnail(path: Path) -> str:
    """A picture as a data URI: as it is where small, else scaled down."""
    small = Image.open(io.BytesIO(picture(path))).convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _plot(sections: Sequence[Section]) -> Any:
    """Preservation against erasure, where both were measured."""
    points: list[Point] = []
    for section in sections:
        heads = section.record.heads()
        gone = next((m for m in heads if m.metric == "esr1"), None)
        kept = next((m for m in reversed(heads) if m.metric == "psr1"), None)
        if gone and kept:
            points += _points(section.title, gone, kept)
    return scatter(points, "erased (ESR-1)", "kept (PSR-1)") if points else None


def _points(title: str, gone: Measure, kept: Measure) -> list[Point]:
    """The edit and its base, unless one of the rates could not be judged."""
    out = []
    for label, kind in ((title, "edit"), (f"base of {title}", "base")):
        x, y = (m.edited if kind == "edit" else m.base for m in (gone, kept))
        if x.value is not None and y.value is not None:
            out.append(Point(label, kind, (x.value, x.low, x.high), (y.value, y.low, y.high)))
    return out
