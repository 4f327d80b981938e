"""Measures memory and time of a sweep of many tiny cells: `python -m benchmarks.sweep_cells [--cells 10000]`.

The driver, its worker processes, the files and the gathering of the table are the real ones; only the work of a cell is
left out (`benchmarks.trivial_worker`): an evaluation is finished at once with twenty numbers. One process runs a tenth
of the cells and another one all of them, each with one worker. The benchmark requires that the memory of driver and
worker grows by less than 50 MB from a tenth to all of the cells, and that every cell is done once.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from efface.sweeps import local
from efface.sweeps.grid import Grid
from efface.sweeps.sweeping import sweep

from .common import format_table

CONCEPTS = ("cat", "dog", "rose", "car", "bus")
ALLOWED_MB = 50
UNIT = 2**20


def build_grid(cells: int) -> Grid:
    """Builds a grid of half as many edits as cells, because each is an erasure and an evaluation."""
    values = tuple(0.01 + i / cells for i in range(cells // 2 // len(CONCEPTS)))
    return Grid(
        models=("glyphs",),
        methods=("sld",),
        concepts={"all": CONCEPTS},
        sweep={"sld": {"threshold": values}},
    )


def run_one(cells: int, folder: Path) -> dict[str, float]:
    """Runs one sweep in this process; returns processor seconds of the driver, and the most MB of it and of its
    worker."""
    local.WORKER = "benchmarks.trivial_worker"
    began, worker = time.process_time(), [0]

    def look(_job: object, answer: dict, done: int, _total: int) -> None:
        if "error" in answer:
            raise SystemExit(answer["error"])
        if done % 100 == 0 or done == cells:
            sizes = [p.memory_info().rss for p in psutil.Process().children() if local.WORKER in p.cmdline()]
            worker.append(max(sizes, default=0))

    summary = sweep(build_grid(cells), folder, on_answer=look)
    ran = time.process_time() - began
    again = time.process_time()
    second = sweep(build_grid(cells), folder)
    assert (summary.done, summary.new, second.new) == (cells, cells, 0), (summary, second)
    return {
        "cells": cells,
        "processor seconds of the driver, a cell": ran / cells,
        "processor seconds of a run that finds all done": time.process_time() - again,
        "driver, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / UNIT,
        "worker, MB": max(worker) / UNIT,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--one", type=Path, help="run them in this process, in this folder, and print what was found")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_one(args.cells, args.one)))
        return 0
    found = []
    for cells in (args.cells // 10, args.cells):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.sweep_cells", "--cells", str(cells), "--one", folder]
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(format_table([*found[0]], [[*each.values()] for each in found]))
    few, many = found
    grown = {key: many[key] - few[key] for key in ("driver, MB", "worker, MB")}
    print("; ".join(f"{key} grew by {mb:.0f}" for key, mb in grown.items()))
    return 0 if max(grown.values()) < ALLOWED_MB else 1


if __name__ == "__main__":
    sys.exit(main())
