"""Measure all claims by one command: `python -m recipes.evidence --workers 1`, which writes docs/results/*.md.

It runs the grids beside this file one after another, the first training seed of each before any second, and writes a
grid's page again whenever a part of it is done. It can be stopped or killed at any moment; the same command continues.
A cell's name depends on the source code too, so run it from a checkout that does not change meanwhile.

    python -m recipes.evidence --dry-run             # prints how long it will take
    python -m recipes.evidence eap abo --workers 2   # measures some of the claims
    python -m recipes.evidence --large --device cuda # takes the larger design, for a GPU
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from efface.cli.sweep import tell
from efface.sweeps.forecast import forecast
from efface.sweeps.grid import Grid, read_grid
from efface.sweeps.sweeping import sweep

HERE = Path(__file__).parent
NAMES = ("eap", "abo", "erasediff", "pruning", "methods", "beat")
ATTACKED = ("attacking.rows=24", "attacking.controls=8", "attacking.budget=default", "attacking.settings={}")
FURTHER = {
    "tulip": "rose", "bus": "car", "lion": "tiger", "cherries": "strawberry", "bicycle": "car",
    "saxophone": "trumpet", "mushroom": "tomato", "snowflake": "rainbow",
    "twemoji": "fluent", "noto-v1": "fluent", "high-contrast": "streamline",
}  # fmt: skip
"""Further concepts of the claim on all methods, objects and then styles, with their anchors."""
WIDER = (
    "concepts.objects=" + json.dumps(["dog", "violin", "hamburger", "airplane", *list(FURTHER)[:8]]),
    "concepts.styles=" + json.dumps(["fluent", *list(FURTHER)[8:]]),
    *(f"anchors.{concept}={json.dumps(anchor)}" for concept, anchor in FURTHER.items()),
    'attacks=["standard"]',
)
LARGE: Mapping[str, Sequence[str]] = {
    "eap": ("sizes.target=100", "sizes.neighbour=120", "sizes.seen=120", "sizes.unseen=240", "audit.count=8"),
    "abo": ("sizes.target=96", "sizes.neighbour=96", "sizes.unseen=96", "audit.controls=8", "audit.count=8"),
    "erasediff": ("sizes.target=320", "sizes.neighbour=120", "sizes.seen=120", "sizes.unseen=240"),
    "pruning": ("sizes.target=64", "sizes.neighbour=96", "sizes.unseen=96", "neurons.seeds=8", *ATTACKED),
    "methods": ("sizes.target=64", "sizes.neighbour=96", "sizes.style=96", "sizes.unseen=96", *ATTACKED, *WIDER),
    "beat": ("sizes.target=64", "sizes.neighbour=96", "sizes.unseen=96", *ATTACKED),
}
"""The values by which `--large` replaces a grid's; it also draws all pictures and takes three training seeds."""


def read_claim(name: str, large: bool) -> tuple[Grid, Sequence[str]]:
    """Reads the grid of a claim, and returns it with the flags by which `efface sweep` runs the same grid."""
    changes = ("seeds=[0, 1, 2]", *LARGE[name]) if large else ()
    flags = ["--fraction", "1", *(part for change in changes for part in ("--set", change))] if large else []
    return read_grid(HERE / f"{name}.toml", 1.0 if large else None, changes), flags


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the grids, or says how long they take; returns 1 where a job failed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"a claim to measure: {', '.join(NAMES)}; all by default"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/evidence"), help="folder that holds a folder for each sweep"
    )
    parser.add_argument("--pages", type=Path, default=Path("docs/results"), help="folder for the pages")
    parser.add_argument("--workers", type=int, default=1, help="number of processes, each with one thread")
    parser.add_argument("--device", help="device of each process; by default a GPU where there is one")
    parser.add_argument("--large", action="store_true", help="take the larger design, for a GPU")
    parser.add_argument("--dry-run", action="store_true", help="print how long it will take, and do nothing else")
    args = parser.parse_args(argv)
    names = args.names or NAMES
    if stray := sorted(set(names) - set(NAMES)):
        parser.error(f"there is no claim {stray[0]!r}; there are {', '.join(NAMES)}")
    grids = {name: read_claim(name, args.large) for name in names}
    if args.dry_run:
        hours = {name: forecast(grid).hours for name, (grid, _) in grids.items()}
        print(*(f"{name}: {each:.1f} hours of one device" for name, each in hours.items()), sep="\n")
        print(f"together: {sum(hours.values()):.1f}")
        return 0
    failed: dict[str, str] = {}
    for seed in sorted({seed for grid, _ in grids.values() for seed in grid.seeds}):
        for name, (grid, flags) in grids.items():
            if seed not in grid.seeds:
                continue
            out, page = args.out / name, args.pages / f"{name}.md"
            said = ["efface", "sweep", f"recipes/evidence/{name}.toml", *flags, "--out", str(out), "--page", str(page)]
            print(f"{name}, training seed {seed}", flush=True)
            done = sweep(
                grid, out, seeds=(seed,), page=page, workers=args.workers, device=args.device, on_answer=tell,
                command=shlex.join(said),
            )  # fmt: skip
            failed |= {f"{name}: {job}": why for job, why in done.failed}
    print(*(f"failed: {job}: {why}" for job, why in failed.items()), sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
