"""A sweep's page in Markdown: means over concepts with intervals, and every concept, the untouched base beside each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..functional.rates import bootstrap
from .grid import Grid
from .table import Line

SHARES = ("esr", "psr", "asr", "ner", "robust")
"""Metrics that begin so are shares, and are shown in percent."""


def write_page(grid: Grid, table: Sequence[Line], command: str) -> str:
    """The page of a sweep.

    Args:
        table: the lines that `gather` gives.
        command: what makes the page anew, as a user types it.
    """
    lines = [line for line in table if line["judge"] == "all" or not _has_all(line)]
    columns = grid.columns or _find_columns(lines)
    head = [
        f"# {grid.title or 'A sweep'}",
        "",
        f"Made by `{command}`. Rates are in percent, with 95 % intervals, and the untouched base in brackets:",
        "Wilson's interval for one concept; a bootstrap over concepts and training seeds for means. Of an attack the",
        "bracket is what random prefixes reach with as many pictures.",
        "",
    ]
    about = [grid.about.strip(), ""] if grid.about else []
    means = ["## Means over concepts", "", *_table(_means(grid, lines, columns)), ""]
    every = ["## Every concept", "", *_table(_every(lines, columns)), ""]
    return "\n".join([*head, *about, *means, *every])


def _has_all(line: Line) -> bool:
    """Whether judges speak together of this metric, so that the single judges' lines would be twice the same."""
    return line["metric"].startswith(("esr", "psr", "asr"))


def _find_columns(lines: Iterable[Line]) -> tuple[str, ...]:
    """The numbers to show where the grid names none: those of the first label, and attacks on the target."""
    found = dict.fromkeys(_column(line) for line in lines)
    first = ("esr1/", "psr1/", "clip/unseen")
    return tuple(c for c in found if c.startswith(first) or ("@" in c and c.endswith("/target")))


def _column(line: Line) -> str:
    at = f"@{line['threshold']}" if line["threshold"] else ""
    return f"{line['metric']}{at}/{line['group']}"


def _means(grid: Grid, lines: Sequence[Line], columns: Sequence[str]) -> list[list[str]]:
    rows = [["split", "method", "strength", "concepts", *columns, "reported (another model)"]]
    for split, method, strength in dict.fromkeys((a["split"], a["method"], a["strength"]) for a in lines):
        mine = [a for a in lines if (a["split"], a["method"], a["strength"]) == (split, method, strength)]
        concepts = {a["concept"] for a in mine}
        cells = [_mean([a for a in mine if _column(a) == column], column) for column in columns]
        told = {a["metric"]: a["reported"] for a in mine if a["reported"]}
        paper = ", ".join(f"{metric} {_show(float(value), metric)}" for metric, value in told.items())
        rows.append([split, method, strength, str(len(concepts)), *cells, paper or "–"])
    return rows


def _mean(lines: Sequence[Line], column: str) -> str:
    """The mean of the means of concepts and seeds, its interval, and the base's mean."""
    values = {f"{a['concept']} {a['seed']}": [float(a["value"])] for a in lines if a["value"]}
    base = [float(a["base"]) for a in lines if a["base"]]
    if not values:
        return "–"
    mean = sum(v[0] for v in values.values()) / len(values)
    interval = bootstrap(values)
    spread = f" [{_show(interval[0], column)}, {_show(interval[1], column)}]" if interval else ""
    return f"{_show(mean, column)}{spread} ({_show(sum(base) / len(base), column) if base else '–'})"


def _every(lines: Sequence[Line], columns: Sequence[str]) -> list[list[str]]:
    rows = [["split", "concept", "method", "seed", "strength", *columns]]
    keys = ("split", "concept", "method", "seed", "strength")
    for key in dict.fromkeys(tuple(a[k] for k in keys) for a in lines):
        mine = {_column(a): a for a in lines if tuple(a[k] for k in keys) == key}
        rows.append([*key, *(_one(mine.get(column), column) for column in columns)])
    return rows


def _one(line: Line | None, column: str) -> str:
    if line is None or not line["value"]:
        return "–"
    value, low, high = (_show(float(line[k]), column) for k in ("value", "low", "high"))
    left = f", {line['unscored']} unscored" if line["unscored"] != "0" else ""
    base = _show(float(line["base"]), column) if line["base"] else "–"
    return f"{value} [{low}, {high}] n={line['n']}{left} ({base})"


def _show(value: float, column: str) -> str:
    return f"{100 * value:.1f}" if column.startswith(SHARES) else f"{value:.3f}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]
