"""Compares evaluations that were made in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..records.basis import require_comparable
from ..records.report import Measure, Record
from .data import Claim, make_claims
from .svg import Point, draw_scatter
from .wording import format_title


@dataclass(frozen=True)
class Comparison:
    """Evaluations that can be compared with each other, or a single one that can't be compared."""

    name: str
    differs: str
    """The reason why it is not compared with the first."""
    points: Sequence[Point]
    """The edits, with the numbers of their evaluations on the page."""
    plot: Markup | None
    kept: str
    claims: Sequence[Claim]


def build_comparisons(records: Sequence[tuple[str, Record]]) -> list[Comparison]:
    """Groups evaluations, given with their titles, that can be compared."""
    found: list[list[tuple[int, str, Record]]] = []
    for number, (title, record) in enumerate(records, 1):
        for group in found:
            if not explain_difference(group[0][2], record):
                group.append((number, title, record))
                break
        else:
            found.append([(number, title, record)])
    return [_set(group, explain_difference(found[0][0][2], group[0][2])) for group in found]


def explain_difference(one: Record, other: Record) -> str:
    """The reason why two evaluations can't be in one plot; "" where they can."""
    if one.suite.name != other.suite.name:
        return f"suite {one.suite.name} and suite {other.suite.name} ask for different things"
    try:
        require_comparable(one, other)
    except ValueError as error:
        return str(error)
    return ""


def _set(group: Sequence[tuple[int, str, Record]], differs: str) -> Comparison:
    edits: list[Point] = []
    bases: list[Point] = []
    kept = ""
    for number, title, record in group:
        heads = record.list_headlines()
        gone = next((m for m in heads if m.metric.startswith("esr")), None)
        stays = next((m for m in reversed(heads) if m.metric.startswith("psr")), None)
        if gone and stays:
            kept = format_title(stays)
            edits += _make_points(number, title, "edit", gone, stays)
            bases += _make_points(number, f"base of {title}", "base", gone, stays)
    distinct = {(p.x, p.y): p for p in bases}
    plot = draw_scatter([*distinct.values(), *edits], "erased (ESR)", "kept (PSR)") if edits else None
    suite = group[0][2].suite
    return Comparison(
        f"{suite.name} {suite.version}", differs, edits, plot, kept, make_claims([r for _, _, r in group])
    )


def _make_points(number: int, label: str, kind: str, gone: Measure, stays: Measure) -> list[Point]:
    """Makes a point, unless one of the rates could not be judged."""
    x, y = (m.edited if kind == "edit" else m.base for m in (gone, stays))
    if x.value is None or y.value is None:
        return []
    return [Point(number, label, kind, (x.value, x.low, x.high), (y.value, y.low, y.high))]
