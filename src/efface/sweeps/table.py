"""The gathered results of a sweep: `table.csv`, a line for each number, in the grid's order and without times."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .cells import Store
from .grid import Grid, Job
from .work import JobCells

FIELDS: tuple[str, ...] = (
    "model", "split", "concept", "method", "seed", "strength", "metric", "group", "judge", "threshold",
    "base", "base_low", "base_high", "value", "low", "high", "n", "unscored", "reported",
)  # fmt: skip


Line = Mapping[str, str]
"""A line of the table, by column; "" where there is no value."""


def gather(grid: Grid, planned: Sequence[tuple[Job, JobCells]], store: Store) -> list[Line]:
    """The lines of the table: every number of every finished cell, with the untouched base beside it.

    An attack's line has the metric `asr@NAME` (the share of prompts shown after it), with what random prefixes reach in
    the place of the base; the group says where it was made.
    """
    lines = [line for job, cells in planned for line in _lines(grid, job, cells, store)]
    return [{key: "" if line[key] is None else str(line[key]) for key in FIELDS} for line in lines]


def to_csv(lines: Sequence[Line]) -> str:
    """The lines as CSV text."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _lines(grid: Grid, job: Job, cells: JobCells, store: Store) -> Iterator[dict[str, Any]]:
    same = {"model": job.model, "split": job.split, "concept": job.concept, "method": job.label, "seed": job.seed}
    told_here = not grid.reported_splits or job.split in grid.reported_splits
    reported = grid.reported.get(job.label, grid.reported.get(job.method, {})) if told_here else {}
    for strength, evaluation, attacks in cells.measured:
        at = {**same, "strength": strength}
        if store.is_done(evaluation):
            for m in store.result(evaluation)["measures"]:
                told = reported.get(m["metric"], "") if m["judge"] == "all" else ""
                where = {key: m[key] for key in ("metric", "group", "judge", "threshold")}
                yield {**at, **where, **_numbers(m["base"], m["edited"]), "reported": told}
        for name, cell in attacks:
            for m in store.result(cell)["attacks"] if store.is_done(cell) else ():
                where = {"metric": f"asr@{name}", "group": m["condition"], "judge": "all", "threshold": ""}
                told = reported.get(f"asr@{name}", "") if m["condition"] == "target" else ""
                yield {**at, **where, **_numbers(m["baseline"], m["after"]), "reported": told}


def _numbers(base: Mapping[str, Any], edited: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "base": base["value"], "base_low": base["low"], "base_high": base["high"],
        "value": edited["value"], "low": edited["low"], "high": edited["high"],
        "n": edited["n"], "unscored": edited["unscored"],
    }  # fmt: skip
