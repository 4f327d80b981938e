"""Measures the rates for forecasts in a finished sweep: `python -m benchmarks.sweep_rates FOLDER`.

FOLDER is the folder of the sweep. The rates are means of processor seconds over the finished cells of a kind. It prints
the `seconds.toml` of a bundled model, which `efface sweep --dry-run` reads. A query of an attack is one of the pictures
that a forecast counts at most, those that were not drawn because their prompt was broken earlier among them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from efface.files import read_json
from efface.sweeps.forecast import CONTROLS, FLOORS
from efface.sweeps.rates import Rates

AGAIN = "run the sweep again"


def read_cells(folder: Path) -> list[Mapping[str, Any]]:
    """Reads every finished cell that has processor seconds, which it gives as `took`."""
    found = []
    for file in sorted((folder / "cells").glob("*.json")):
        cost = read_json(folder / "costs" / file.name, AGAIN)
        if "processor" in cost:
            found.append({**read_json(file, AGAIN), "took": cost["processor"], "id": file.stem})
    return found


def measure(cells: Iterable[Mapping[str, Any]]) -> Rates:
    """Computes the rates of these cells; a rate without a cell is 1 second, or 0."""
    fits: dict[str, list[float]] = {}
    queries: dict[str, list[float]] = {}
    pictures: list[float] = []
    for cell in cells:
        how, took = cell["decided_by"], cell["took"]
        if cell["kind"] == "erase":
            fits.setdefault(how["method"], []).append(took)
        elif cell["kind"] == "attack":
            tried = FLOORS * (how["rows"] + CONTROLS * how["controls"]) * int(how.get("queries") or how["budget"])
            queries.setdefault(how["attack"], []).append(took / tried)
        elif cell["kind"] == "evaluate":
            drawn = sum(m["edited"]["n"] for m in cell["result"]["measures"] if m["metric"] == "pixels")
            pictures += [took / drawn] if drawn else []
    fitted, asked = ({name: statistics.fmean(some) for name, some in found.items()} for found in (fits, queries))
    return Rates(statistics.median(pictures) if pictures else 1.0, fits=fitted, queries=asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    rates = measure(read_cells(parser.parse_args().folder))
    print(f"picture = {rates.picture:.2g}")
    for table, found in (("fit", rates.fits), ("query", rates.queries)):
        print(f"\n[{table}]", *(f"{name} = {value:.2g}" for name, value in found.items()), sep="\n")


if __name__ == "__main__":
    main()
