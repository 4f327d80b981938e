"""A sweep's page in Markdown: means over concepts with intervals, and every concept, each beside the untouched base."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence

from ..functional.rates import bootstrap, cluster_means
from ..plurals import write_count
from .compare import LEAST, tabulate
from .grid import Comparison, Grid
from .jobs import is_seeded, list_variants
from .made import Made
from .table import TOGETHER, Line, find_column, show

KEYS = ("model", "split", "concept", "method", "setting", "seed", "strength")
MEAN_KEYS = ("model", "split", "method", "setting", "strength")
SHOWN = 3
"""Edits that are named of those which raise an alarm."""
OTHER_JUDGES = "Of a number that several judges give, each for itself, this is the first judge's; `table.csv` has all."
NO_MORE = Made()
"""The default, where the facts about a sweep are not known."""


def write_page(grid: Grid, table: Sequence[Line], command: str, made: Made = NO_MORE) -> str:
    """The page of a sweep.

    Args:
        grid: the sweep's grid.
        table: the lines that `gather` returns.
        command: the command that makes the page again.
        made: the facts about the sweep.
    """
    shown = [line for line in table if is_shown(grid, line)]
    lines = _take_first_judges(shown)
    columns = grid.columns or tuple(dict.fromkeys(find_column(line) for line in lines if _is_default(line)))
    head = [
        f"# {grid.title or 'A sweep'}",
        "",
        f"Made by `{command}`. Rates are in percent, with 95 % intervals, and the untouched base in brackets:",
        "Wilson's interval for one concept; for means of at least four concepts a bootstrap over these, each with the",
        "mean of its training seeds. n counts pictures or prompts. Of an attack the bracket is what random prefixes",
        "reach with as many pictures. `asr@nothing` is what plain prompts show, `robust` the share of prompts that",
        "none of the attacks made at that strength broke, `agreement` the share of pictures on which all judges say",
        "the same. What a paper reports is of another model.",
        *([OTHER_JUDGES] if len(lines) < len(shown) else []),
        "",
        *made.format_lines(),
        "",
    ]
    about = [grid.about.strip(), ""] if grid.about else []
    means = ["## Means over concepts", "", *_shorten_table(_list_means(lines, columns), len(MEAN_KEYS)), ""]
    seedless = {variant.name for variant in list_variants(grid) if not is_seeded(variant.method)}
    compared = [part for each in grid.compare for part in _write_comparison(each, lines, seedless)]
    own = {concept for concept in grid.reported if any(concept in some for some in grid.concepts.values())}
    every = ["## Every concept", "", *_shorten_table(_list_every(lines, columns, own), len(KEYS)), ""]
    refused = _list_edits("Attacks that could not be made", ("why", "on"), made.refused)
    alarms = _list_edits("Alarms", ("alarm", "raised by"), made.alarms)
    failed = _list_edits("Failed in their last run", ("why", "failed"), made.failed)
    numbers = [*means, *compared, *every] if lines else []
    return "\n".join([*head, *about, *numbers, *failed, *refused, *alarms])


def _list_edits(title: str, head: Sequence[str], found: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """A section with a line for each finding and the edits concerned; no section if nothing was found."""
    rows = [[" ".join(what.split()).replace("|", "\\|"), _list_some(jobs)] for what, jobs in found]
    return [f"## {title}", "", *_write_table([head, *rows]), ""] if found else []


def _write_comparison(comparison: Comparison, lines: Sequence[Line], seedless: Collection[str]) -> list[str]:
    """The section of a comparison."""
    told = f"{comparison.of} where {comparison.at} is the same, read off between two strengths of each."
    rows = tabulate(comparison, lines, seedless)
    body = _write_table(rows) if len(rows) > 1 else ["No pair has results of both methods so far."]
    return [f"## {comparison.title}", "", told, "", *body, ""]


def is_shown(grid: Grid, line: Line) -> bool:
    """Whether the page needs a line: one of its columns or comparisons, by all judges together where there is that."""
    if line["judge"] != "all" and line["metric"].startswith(TOGETHER):
        return False
    compared = [name for each in grid.compare for name in (each.of, each.at)]
    column = find_column(line)
    return column in compared or (column in grid.columns if grid.columns else _is_default(line))


def _take_first_judges(lines: Sequence[Line]) -> list[Line]:
    """One line for each number of an edit: the first judge's where there are several and none is of all together."""
    found: dict[tuple[str, ...], Line] = {}
    for line in lines:
        found.setdefault((*(line[key] for key in KEYS), find_column(line)), line)
    return list(found.values())


def _is_default(line: Line) -> bool:
    """Whether a line is shown where the grid names no columns.

    These are the numbers of the first label, attacks on the target, the numbers that a paper reports, and the share of
    the target's pictures on which the judges agree.
    """
    column = find_column(line)
    first = column.startswith(("esr1/", "psr1/", "clip/unseen", "robust/", "agreement/target"))
    return first or bool(line["reported"]) or (column.startswith("asr") and line["group"] == "target")


def _list_means(lines: Sequence[Line], columns: Sequence[str]) -> list[list[str]]:
    rows = [[*MEAN_KEYS, "concepts", *columns]]
    found: dict[tuple[str, ...], dict[str, list[Line]]] = {}
    for line in lines:
        found.setdefault(tuple(line[k] for k in MEAN_KEYS), {}).setdefault(find_column(line), []).append(line)
    for key, mine in found.items():
        concepts = len({line["concept"] for some in mine.values() for line in some})
        means = (_format_mean(mine.get(column, []), column, concepts) for column in columns)
        rows.append([*key, str(concepts), *means])
    return rows


def _format_mean(lines: Sequence[Line], column: str, concepts: int) -> str:
    """The mean of concepts, its interval, n, the base's mean, and what a paper reports; and where some of the row's
    concepts have no value, of how many the mean is."""
    values, base = (_group_by_concept(lines, which) for which in ("value", "base"))
    if not values:
        return "–"
    interval = bootstrap(values) if len(values) >= LEAST else None
    spread = f" [{show(interval[0], column)}, {show(interval[1], column)}]" if interval else ""
    before = f" ({show(statistics.fmean(cluster_means(base)), column)})" if base else ""
    n = sum(int(line["n"]) for line in lines if line["value"])
    mean = show(statistics.fmean(cluster_means(values)), column)
    some = f" of {write_count(len(values), 'concept')}" if len(values) < concepts else ""
    return f"{mean}{spread} n={n}{some}{before}{_format_reported(lines, column)}"


def _group_by_concept(lines: Sequence[Line], which: str) -> dict[str, list[float]]:
    """A number of these lines, by concept: one for each training seed."""
    found: dict[str, list[float]] = {}
    for line in lines:
        if line[which]:
            found.setdefault(line["concept"], []).append(float(line[which]))
    return found


def _list_some(jobs: Sequence[str]) -> str:
    """How many edits, and the first of them."""
    more = f", and {len(jobs) - SHOWN} more" if len(jobs) > SHOWN else ""
    return f"{len(jobs)}: {'; '.join(jobs[:SHOWN])}{more}"


def _format_reported(lines: Sequence[Line], column: str) -> str:
    """The paper's number, or its mean over these concepts, with its base in brackets; "" where one of them has none."""
    told, base = (_average_told(lines, which) for which in ("reported", "reported_base"))
    if told is None:
        return ""
    return f"; reported {show(told, column)}{'' if base is None else f' ({show(base, column)})'}"


def _average_told(lines: Sequence[Line], which: str) -> float | None:
    """The mean over concepts of what a paper reports; None where it has no number of one of them."""
    if any(line["value"] and not line[which] for line in lines):
        return None
    found = _group_by_concept([line for line in lines if line["value"]], which)
    return statistics.fmean(cluster_means(found)) if found else None


def _list_every(lines: Sequence[Line], columns: Sequence[str], own: Collection[str]) -> list[list[str]]:
    """A row for each concept, with what a paper reports of the concepts in `own` alone."""
    rows = [[*KEYS, *columns]]
    found: dict[tuple[str, ...], dict[str, Line]] = {}
    for line in lines:
        found.setdefault(tuple(line[k] for k in KEYS), {})[find_column(line)] = line
    for key, mine in found.items():
        rows.append([*key, *(_format_one(mine.get(column), column, own) for column in columns)])
    return rows


def _format_one(line: Line | None, column: str, own: Collection[str]) -> str:
    if line is None or not line["value"]:
        return "–"
    value, *ends = (show(float(line[k]), column) if line[k] else "" for k in ("value", "low", "high"))
    spread = f" [{', '.join(ends)}]" if all(ends) else ""
    left = f", {line['unscored']} unscored" if line["unscored"] != "0" else ""
    base = f" ({show(float(line['base']), column)})" if line["base"] else ""
    told = _format_reported([line], column) if line["concept"] in own else ""
    return f"{value}{spread} n={line['n']}{left}{base}{told}"


def _shorten_table(rows: Sequence[Sequence[str]], keys: int) -> list[str]:
    """A table without those of its first columns, the method's apart, that have one value, which stands above it."""
    values = [list(dict.fromkeys(row[i] for row in rows[1:])) for i in range(keys)]
    left = [i for i in range(keys) if len(values[i]) > 1 or rows[0][i] == "method"]
    named = [i for i in range(keys) if i not in left and rows[0][i] != "model"]  # one model stands in the page's head
    same = [f"{rows[0][i]} {values[i][0]}" for i in named if values[i] and values[i][0]]
    table = _write_table([[*(row[i] for i in left), *row[keys:]] for row in rows])
    return [f"In all lines: {', '.join(same)}.", "", *table] if same else table


def _write_table(rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]
