"""The grids of our claims run from end to end on a tiny random model, cut short: `python tests/evidence_grids.py`.

The model has things of the same names as the embedded ones, and judges that see the first concept in every picture, so
that attacks have something to bring back. `make grids` runs them all.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoModelForImageClassification

from efface.cli.app import main
from efface.sweeps.grid import Grid, read_grid
from efface.sweeps.jobs import list_variants
from judging_fixtures import write_bundle
from paper_grids import write_ddpm
from tiny_fits import shorten_settings

EVIDENCE = Path(__file__).parents[1] / "recipes" / "evidence"
NAMES = sorted(file.stem for file in EVIDENCE.glob("*.toml"))
METHODS = ("esd", "uce", "abo", "abo, no alternative", "eap", "p-esd", "untouched", "all four, guided", "fixed weight")
"""Those that are run of each grid, where it has them."""
NOT_HERE = ("clip", "psr1/style", "change-by", "psr@purify", "ssim@purify/neighbour")
"""Numbers that this model has none of: no kept thing is seen, so that nothing kept can be lost by purification."""
LONGER = {"compose": {"steps": 45}}
"""Settings in the place of the short ones: a mask at a learning rate of 0.1 prunes nothing in fewer updates."""


def list_things(grid: Grid) -> list[str]:
    """The names of the grid's concepts and anchors, and a few more to keep."""
    named = [part for some in grid.concepts.values() for concept in some for part in concept.split(" + ")]
    return [*dict.fromkeys([*named, *grid.anchors.values(), "bomb", "pistol", "lemon", "snail", "ghost", "alien"])]


def write_model(folder: Path, grid: Grid) -> Path:
    """A model of the glyphs make whose judges see the first concept in every picture."""
    things = list_things(grid)
    write_bundle(folder, things)
    data = json.loads((folder / "world.json").read_text())
    for thing in data["things"]:
        thing["near"] = [name for name in ("lemon", "snail") if name != thing["name"]]
    if grid.models == ("glyphs-ddpm",):
        (folder / "model" / "model_index.json").unlink()
        write_ddpm(folder / "classes", things)
        data |= {"styles": [], "backgrounds": {}, "held_out": [], "pairs": False}
    (folder / "world.json").write_text(json.dumps(data))
    for place in (folder / "judges").glob("object-*"):
        judge = AutoModelForImageClassification.from_pretrained(place)
        head = judge.classifier if hasattr(judge.classifier, "bias") else judge.classifier[-1]
        head.bias.data[0] += 100
        judge.save_pretrained(place)
    return folder / ("classes" if grid.models == ("glyphs-ddpm",) else "model")


def list_flags(name: str, folder: Path) -> list[str]:
    """The flags that cut a grid short, after its model was written to the folder."""
    file = EVIDENCE / f"{name}.toml"
    grid = read_grid(file)
    model = write_model(folder / "bundle", grid)
    concept = next(each for some in grid.concepts.values() for each in some)
    flags = [str(file), "--model", str(model), "--concept", concept, "--seed", "0", "--fraction", "1"]
    flags += ["--set", f"drawing.steps={5 if grid.neurons else 2}"]  # neurons are looked at on five timesteps
    for variant in list_variants(grid):
        if variant.name in METHODS:
            flags += ["--method", variant.name]
        for key, value in {**shorten_settings(variant.method), **LONGER.get(variant.method, {})}.items():
            if key not in variant.settings and key not in ("weights", *grid.sweep.get(variant.name, {})):
                flags += ["--set", f"settings.{variant.method}.{key}={json.dumps(value)}"]
    flags += ["--set", "sweep.esd.steps=[1, 2]"] * ("esd" in grid.sweep)
    kept = 20 if grid.protocol == "ddpm-class" else 2  # sets of fewer than 20 pictures have no KID
    sizes = {group: 2 if group == "target" else kept for group in grid.sizes}
    flags += [part for group, n in sizes.items() for part in ("--set", f"sizes.{group}={n}")]
    if grid.attacks:
        flags += ["--set", "attacking.rows=2", "--set", "attacking.controls=1", "--set", "attacking.budget=2"]
        flags += ["--set", "attacking.settings={}"]
    flags += ["--set", "audit.worst=1", "--set", "audit.controls=3", "--set", "audit.count=1"] * bool(grid.audit)
    flags += ["--set", "purify.steps=2", "--set", "purify.sizes.target=2"] * bool(grid.purify)
    return flags + ["--set", "neurons.seeds=2"] * bool(grid.neurons)


def run(name: str, folder: Path) -> str:
    """A grid of a claim, cut short, from end to end; its page, after it was checked."""
    page = folder / "results" / f"{name}.md"
    flags = [*list_flags(name, folder), "--out", str(folder / "out"), "--page", str(page)]
    assert main(["sweep", *flags]) == 0, name
    grid, text = read_grid(EVIDENCE / f"{name}.toml"), page.read_text()
    with (folder / "out" / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    there = {f"{line['metric']}/{line['group']}" for line in lines if line["value"]}
    missing = [c for c in grid.columns if c not in there and not c.startswith(NOT_HERE)]
    assert not missing, (name, missing, sorted(there))
    assert all(f"## {each.title}" in text for each in grid.compare)
    assert "cells are done so far" in text and "core-hours" in text and f"--page {page}" in text
    return text


def run_all(names: Sequence[str]) -> int:
    """Run these grids one after another; the number of those that failed."""
    failed = 0
    for name in names:
        with tempfile.TemporaryDirectory() as place:
            try:
                print(name, len(run(name, Path(place)).splitlines()), "lines", flush=True)
            except AssertionError as error:
                print(name, "failed:", error, flush=True)
                failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(run_all(sys.argv[1:] or NAMES))
