"""A sweep's page in Markdown: means over concepts with intervals, and every concept, the untouched base beside each."""

from __future__ import annotations

from collections.abc import Sequence

from ..functional.rates import bootstrap
from .compare import tabulate
from .grid import Comparison, Grid
from .made import Made
from .table import TOGETHER, Line, find_column, show

KEYS = ("split", "concept", "method", "setting", "seed", "strength")


NO_MORE = Made()
"""Where nothing is known of how a sweep was made."""


def write_page(grid: Grid, table: Sequence[Line], command: str, made: Made = NO_MORE) -> str:
    """The page of a sweep.

    Args:
        table: the lines that `gather` gives.
        command: what makes the page anew, as a user types it.
        made: what the sweep is made of, and what it took.
    """
    lines = [line for line in table if is_shown(grid, line)]
    columns = grid.columns or tuple(dict.fromkeys(find_column(line) for line in lines if _is_default(line)))
    head = [
        f"# {grid.title or 'A sweep'}",
        "",
        f"Made by `{command}`. Rates are in percent, with 95 % intervals, and the untouched base in brackets:",
        "Wilson's interval for one concept; a bootstrap over concepts and training seeds for means. Of an attack the",
        "bracket is what random prefixes reach with as many pictures. `asr@nothing` is what plain prompts show,",
        "`robust` the share of prompts that nothing broke, `agreement` the share of pictures on which all judges say",
        "the same. What a paper reports is of another model.",
        *made.lines(),
        "",
    ]
    about = [grid.about.strip(), ""] if grid.about else []
    means = ["## Means over concepts", "", *_table(_means(lines, columns)), ""]
    compared = [part for each in grid.compare for part in _compared(each, lines)]
    every = ["## Every concept", "", *_table(_every(lines, columns)), ""]
    alarms = ["## Alarms", "", *_table([["alarm", "raised by"], *made.alarms]), ""] if made.alarms else []
    return "\n".join([*head, *about, *means, *compared, *every, *alarms])


def _compared(comparison: Comparison, lines: Sequence[Line]) -> list[str]:
    """The section of a comparison."""
    told = f"{comparison.of} where {comparison.at} is the same, read off between two strengths of each."
    rows = tabulate(comparison, lines)
    body = _table(rows) if len(rows) > 1 else ["Of no pair both were run so far."]
    return [f"## {comparison.title}", "", told, "", *body, ""]


def is_shown(grid: Grid, line: Line) -> bool:
    """Whether the page needs a line: its columns' and its comparisons', by all judges together where they say it so."""
    if line["judge"] != "all" and line["metric"].startswith(TOGETHER):
        return False
    compared = [name for each in grid.compare for name in (each.of, each.at)]
    column = find_column(line)
    return column in compared or (column in grid.columns if grid.columns else _is_default(line))


def _is_default(line: Line) -> bool:
    """Where the grid names no columns: numbers of the first label, attacks on the target, what a paper reports, and in
    how many pictures of the target the judges agree.
    """
    column = find_column(line)
    first = column.startswith(("esr1/", "psr1/", "clip/unseen", "robust/", "agreement/target"))
    return first or bool(line["reported"]) or (column.startswith("asr") and line["group"] == "target")


def _means(lines: Sequence[Line], columns: Sequence[str]) -> list[list[str]]:
    keys = ("split", "method", "setting", "strength")
    rows = [[*keys, "concepts", *columns]]
    found: dict[tuple[str, ...], dict[str, list[Line]]] = {}
    for line in lines:
        found.setdefault(tuple(line[k] for k in keys), {}).setdefault(find_column(line), []).append(line)
    for key, mine in found.items():
        concepts = {line["concept"] for some in mine.values() for line in some}
        rows.append([*key, str(len(concepts)), *(_mean(mine.get(column, []), column) for column in columns)])
    return rows


def _mean(lines: Sequence[Line], column: str) -> str:
    """The mean of concepts and seeds, its interval, the base's mean, and what a paper reports."""
    values = {f"{a['concept']} {a['seed']}": [float(a["value"])] for a in lines if a["value"]}
    base = [float(a["base"]) for a in lines if a["base"]]
    if not values:
        return "–"
    mean = sum(v[0] for v in values.values()) / len(values)
    interval = bootstrap(values)
    spread = f" [{show(interval[0], column)}, {show(interval[1], column)}]" if interval else ""
    before = f" ({show(sum(base) / len(base), column)})" if base else ""
    return f"{show(mean, column)}{spread}{before}{_reported(lines[0], column)}"


def _reported(line: Line, column: str) -> str:
    """What the paper reports, with its base in brackets; nothing where it reports nothing."""
    if not line["reported"]:
        return ""
    base = f" ({show(float(line['reported_base']), column)})" if line["reported_base"] else ""
    return f"; reported {show(float(line['reported']), column)}{base}"


def _every(lines: Sequence[Line], columns: Sequence[str]) -> list[list[str]]:
    rows = [[*KEYS, *columns]]
    found: dict[tuple[str, ...], dict[str, Line]] = {}
    for line in lines:
        found.setdefault(tuple(line[k] for k in KEYS), {})[find_column(line)] = line
    for key, mine in found.items():
        rows.append([*key, *(_one(mine.get(column), column) for column in columns)])
    return rows


def _one(line: Line | None, column: str) -> str:
    if line is None or not line["value"]:
        return "–"
    value, *ends = (show(float(line[k]), column) if line[k] else "" for k in ("value", "low", "high"))
    spread = f" [{', '.join(ends)}]" if all(ends) else ""
    left = f", {line['unscored']} unscored" if line["unscored"] != "0" else ""
    base = f" ({show(float(line['base']), column)})" if line["base"] else ""
    return f"{value}{spread} n={line['n']}{left}{base}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]
