"""Gathers the results of a sweep in `table.csv`: a line for each number, in the grid's order and without times."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import new_file
from .cells import Cell, Store
from .grid import Grid
from .jobs import Job
from .reported import BASE, find_told
from .summaries import NOTHING, find_worst
from .work import JobCells

FIELDS: tuple[str, ...] = (
    "model", "split", "concept", "method", "setting", "rank", "seed", "strength",
    "metric", "group", "judge", "threshold",
    "base", "base_low", "base_high", "value", "low", "high", "n", "unscored",
    "reported", "reported_base",
)  # fmt: skip


SHARES = ("esr", "psr", "asr", "ner", "robust", "agreement", "ua", "ira", "cra", "probability")
"""Metrics that begin with one of these are shares, and are shown in percent."""
TOGETHER = ("esr", "psr", "asr", "ua", "ira", "cra")
"""Metrics of all judges together; lines of the single judges would repeat them."""
Line = Mapping[str, str]
"""A line of the table, by column; "" where there is no value."""


def gather(grid: Grid, planned: Sequence[tuple[Job, JobCells]], store: Store) -> Iterator[Line]:
    """The lines of the table: every number of every finished cell, with the untouched base beside it.

    An attack's line has the metric `asr@NAME` (the share of prompts that show the concept after it), with the rate of
    random prefixes in place of the base; the group is the condition. `asr@nothing` is the rate of plain prompts before
    any attack, and `robust` the share of prompts that no attack broke, where all of an edit's attacks are finished and
    could be made.
    """
    for job, cells in planned:
        for line in _list_lines(grid, job, cells, store):
            yield {key: "" if line[key] is None else str(line[key]) for key in FIELDS}


def write_table(path: Path, lines: Iterable[Line]) -> Path:
    """Writes the lines as CSV, one after another, so that they are never all in memory."""
    with new_file(path) as made, made.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return path


def find_column(line: Line) -> str:
    """The name of a line's column in a page and a grid: metric/group, or metric@threshold/group."""
    at = f"@{line['threshold']}" if line["threshold"] else ""
    return f"{line['metric']}{at}/{line['group']}"


def show(value: float, column: str, signed: bool = False) -> str:
    """Writes a number for a page: a share in percent, any other number with three digits."""
    return f"{100 * value:{'+' * signed}.1f}" if column.startswith(SHARES) else f"{value:{'+' * signed}.3g}"


def _list_lines(grid: Grid, job: Job, cells: JobCells, store: Store) -> Iterator[dict[str, Any]]:
    same = {"model": job.model, "split": job.split, "concept": job.concept, "method": job.label}
    same |= {"setting": job.setting, "rank": job.rank, "seed": job.seed}
    for strength, evaluation, attacks in cells.measured:
        at = {**same, "strength": strength}
        told = functools.partial(find_reported, grid, job, strength=strength)
        if store.is_done(evaluation):
            for m in store.read_result(evaluation)["measures"]:
                where = {key: m[key] for key in ("metric", "group", "judge", "threshold")}
                yield {**at, **where, **_read_numbers(m["base"], m["edited"]), **told(where)}
        yield from _list_attack_lines(told, at, attacks, store)
    for cell in cells.diagnosed:
        for name, number in store.read_result(cell)["numbers"].items() if store.is_done(cell) else ():
            metric, group = name.split("/")
            where = {"metric": metric, "group": group, "judge": "all", "threshold": ""}
            numbers = {**_read_numbers(number.get("base", NOTHING), number), **find_reported(grid, job, where)}
            yield {**same, "strength": 1.0, **where, **numbers}


def _list_attack_lines(
    told: Callable[[Mapping[str, Any]], dict[str, Any]],
    at: Mapping[str, Any],
    attacks: Sequence[tuple[str, Cell]],
    store: Store,
) -> Iterator[dict[str, Any]]:
    results = {name: store.read_result(cell) for name, cell in attacks if store.is_done(cell)}
    first = next((result for result in results.values() if result["attacks"]), {"attacks": ()})
    for m in first["attacks"]:
        where = {"metric": "asr@nothing", "group": m["condition"], "judge": "all", "threshold": ""}
        yield {**at, **where, **_read_numbers(NOTHING, m["before"]), **told(where)}
    for name, result in results.items():
        for m in result["attacks"]:
            where = {"metric": f"asr@{name}", "group": m["condition"], "judge": "all", "threshold": ""}
            yield {**at, **where, **_read_numbers(m["baseline"], m["after"]), **told(where)}
    made = all("refused" not in result for result in results.values())
    if made and len(results) == len(attacks) and (worst := find_worst(list(results.values()))):
        where = {"metric": "robust", "group": "target", "judge": "all", "threshold": ""}
        yield {**at, **where, **_read_numbers(NOTHING, worst), **told(where)}


def find_reported(grid: Grid, job: Job, where: Mapping[str, Any], strength: float = 1.0) -> dict[str, Any]:
    """The paper's value of a number, and of its untouched base; "" beside a share of an edit, and beside all but the
    last value of a swept setting, because a paper reports of the whole method.

    The numbers of the job's concept go before those of all concepts. The grid names a number by its metric, with @ and
    its threshold, and by its group where that matters: `esr1`, `ner@0.5`, `psr1/kept`. An attack's number without a
    group is that of the target.
    """
    swept = grid.sweep.get(job.label, {})
    whole = strength == 1 and job.rank == max((len(values) for values in swept.values()), default=1) - 1
    told_here = whole and (not grid.reported_splits or job.split in grid.reported_splits)
    alone = where["judge"] != "all" and where["metric"].startswith(TOGETHER)
    elsewhere = where["metric"].startswith("asr") and where["group"] != "target"
    metric = f"{where['metric']}@{where['threshold']}" if where["threshold"] else where["metric"]
    names = (f"{metric}/{where['group']}", *(() if elsewhere else (metric,)))
    tables = {"reported": find_told(grid.reported, job.concept, (job.label, job.method))}
    tables |= {"reported_base": find_told(grid.reported, job.concept, (BASE,))}
    found = {key: next((t[n] for n in names if n in t), "") for key, t in tables.items()}
    return found if told_here and not alone else dict.fromkeys(found, "")


def _read_numbers(base: Mapping[str, Any], edited: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "base": base["value"], "base_low": base["low"], "base_high": base["high"],
        "value": edited["value"], "low": edited["low"], "high": edited["high"],
        "n": edited["n"], "unscored": edited["unscored"],
    }  # fmt: skip
