"""Compares pairs of methods where both reach the same value of another number, by interpolation between strengths.

A method's curve goes through its values of the swept setting, and through its strengths where there are several, from
the weakest on. It starts at the untouched base: for a rate of pictures, that is the base's number beside the edit's;
for an attack, the number of an arm of strength 0 on the same concept, if the grid has one.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..functional.rates import LEAST_CLUSTERS, bootstrap, cluster_means
from .grid import Comparison
from .table import Line, find_column, show

LEAST = LEAST_CLUSTERS
"""The least number of concepts for an interval of a mean difference."""
Key = tuple[str, str, str, str]
"""Model, method, concept, and training seed."""
Curve = tuple["Start", list["Point"]]


@dataclass(frozen=True)
class Point:
    """One edit at one strength: the number that is held equal (`at`), and the number that is compared (`of`)."""

    place: tuple[int, float]
    """The rank of its setting among the method's, and its strength; the weakest comes first."""
    at: float
    of: float


@dataclass(frozen=True)
class Start:
    """The untouched base, from which a curve begins."""

    at: float | None
    of: float | None


def list_curves(comparison: Comparison, lines: Sequence[Line]) -> dict[Key, Curve]:
    """Each method's curve on each concept, for each model and training seed."""
    numbers: dict[Key, dict[tuple[int, float], dict[str, Line]]] = {}
    untouched: dict[tuple[str, str, str], float] = {}
    for line in lines:
        column = find_column(line)
        if column not in (comparison.at, comparison.of) or not line["value"]:
            continue
        if float(line["strength"]) == 0:
            untouched[line["model"], line["concept"], column] = float(line["value"])
            continue
        key = line["model"], line["method"], line["concept"], line["seed"]
        place = int(line["rank"]), float(line["strength"])
        numbers.setdefault(key, {}).setdefault(place, {})[column] = line
    curves = {}
    for key, places in numbers.items():
        whole = {place: found for place, found in places.items() if {comparison.at, comparison.of} <= set(found)}
        points = [
            Point(place, float(found[comparison.at]["value"]), float(found[comparison.of]["value"]))
            for place, found in sorted(whole.items())
        ]
        first = next(iter(whole.values()), {})
        at, of = (
            untouched.get((key[0], key[2], column))
            if column.startswith(("asr", "robust"))
            else _find_base(first.get(column))
            for column in (comparison.at, comparison.of)
        )
        curves[key] = Start(at, of), points
    return curves


def _find_base(line: Line | None) -> float | None:
    return float(line["base"]) if line and line["base"] else None


def _find_curve(curves: Mapping[Key, Curve], key: Key, seedless: Collection[str]) -> Curve | None:
    """A curve; that of a method without randomness, which has one seed alone, stands for every seed."""
    model, method, concept, _ = key
    if key in curves or method not in seedless:
        return curves.get(key)
    return next((curve for (*same, _), curve in curves.items() if same == [model, method, concept]), None)


def read_between(start: Start, points: Sequence[Point], wanted: float) -> float | None:
    """The compared number where the other first has the wanted value; None where the curve does not reach it."""
    curve = [(start.at, start.of)] if start.at is not None and start.of is not None else []
    curve += [(point.at, point.of) for point in points]
    if len(curve) == 1 and curve[0][0] == wanted:
        return curve[0][1]
    for (one, before), (other, after) in itertools.pairwise(curve):
        if min(one, other) <= wanted <= max(one, other):
            return before + (0.0 if one == other else (wanted - one) / (other - one)) * (after - before)
    return None


def tabulate(comparison: Comparison, lines: Sequence[Line], seedless: Collection[str] = ()) -> list[list[str]]:
    """Makes a row for each pair, level, concept and seed, and for each pair and level the mean of all concepts.

    Args:
        seedless: the methods and variants without randomness, which were fitted with one seed.
    """
    curves = list_curves(comparison, lines)
    models = list(dict.fromkeys(model for model, *_ in curves))
    rows = [["pair", "held at", "concept", "seed", "first", "second", "first − second"]]
    held = [(level, False) for level in comparison.levels] + [(level, True) for level in comparison.below]
    for model, (first, second), (level, below) in itertools.product(models, comparison.pairs, held):
        pair = f"{first} / {second}" + (f" on {model}" if len(models) > 1 else "")
        shown = f"base − {show(level, comparison.at)}" if below else show(level, comparison.at)
        gaps: dict[str, list[float | None]] = {}
        asked = [(concept, seed) for on, method, concept, seed in curves if on == model and method in (first, second)]
        for concept, seed in dict.fromkeys(asked):
            both = [_find_curve(curves, (model, name, concept, seed), seedless) for name in (first, second)]
            if all(both):
                found = [_read(curve, level, below) for curve in both if curve]
                gap = _subtract(found)
                gaps.setdefault(concept, []).append(gap)
                cells = ["not reached" if value is None else show(value, comparison.of) for value in found]
                told = "–" if gap is None else show(gap, comparison.of, signed=True)
                rows.append([pair, shown, concept, seed, *cells, told])
        if cluster_means(gaps):
            told = _format_mean(gaps, comparison.of)
            rows.append([f"**{pair}**", shown, f"mean of {len(cluster_means(gaps))}", "", "", "", told])
    return rows


def _read(curve: Curve, level: float, below: bool) -> float | None:
    start, points = curve
    if not below:
        return read_between(start, points, level)
    return None if start.at is None else read_between(start, points, start.at - level)


def _subtract(found: Sequence[float | None]) -> float | None:
    first, second = found
    return None if first is None or second is None else first - second


def _format_mean(gaps: Mapping[str, Sequence[float | None]], column: str) -> str:
    """The mean over concepts, with equal weights of a concept's seeds, and an interval from four concepts on."""
    judged = cluster_means(gaps)
    interval = bootstrap(gaps) if len(judged) >= LEAST else None
    ends = ", ".join(show(end, column, signed=True) for end in interval) if interval else ""
    mean = show(statistics.fmean(judged), column, signed=True)
    return f"**{mean} [{ends}]**" if ends else f"**{mean}, no interval**"
