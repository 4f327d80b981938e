"""Try settings of a method on development concepts: `python -m recipes.tune METHOD key=value … [--target cat …]`.

Prompts and seeds differ from those that recipes report, and things that the training never saw are left out: the
columns are the target, its neighbours and other things of the vocabulary. Every try adds a line to
out/tuning/tried.jsonl.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import efface
from efface import methods
from efface.api.resources import choose_suite
from efface.concept import Erasure
from efface.evaluation.evaluate import Settings, evaluate
from efface.evaluation.rows_table import read_rows
from efface.scorers import build_scorers
from efface.suites import world
from efface.suites.rows import build
from efface.suites.spec import Suite
from efface.suites.world import locate

OUT = Path("out/tuning")
GROUPS = {"target": "esr1", "neighbour": "psr1", "seen": "psr1"}
DEVELOPMENT = ("cat", "guitar", "pizza", "rocket", "rose", "car", "twemoji", "noto-v1", "unsafe")


def build_suite(erasure: Erasure, known: world.World, sizes: Mapping[str, int]) -> Suite:
    """Builds a suite for an erasure, of prompts and seeds that no recipe reports, without the groups that it lacks."""
    name = choose_suite(erasure, known)
    probe = build(name, erasure, known, per_group=1)
    sizes = {group: n for group, n in sizes.items() if probe.select_group(group)}
    return build(name, erasure, known, sizes=sizes, only=list(sizes), salt="tuning")


def parse_value(text: str) -> object:
    """Parses a flag's value as JSON; other text is returned as it is."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return text
    return tuple(found) if isinstance(found, list) else found


def count_failures(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Counts the edited model's pictures that are not as their row demands, by group and concept."""
    failed = (f"{row['group']}: {row['concept']}" for row in rows if row["variant"] == "edited" and not row["success"])
    return dict(Counter(failed).most_common())


def main(argv: Sequence[str] | None = None) -> None:
    """Erases each concept with the settings, judges the edit, and adds a line to the file of tries for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", help="name of the method")
    parser.add_argument("settings", nargs="*", help="key=value, which replaces the model's own suggestions")
    parser.add_argument("--model", default="glyphs", help="name or folder of a glyphs model")
    parser.add_argument("--target", action="append", choices=DEVELOPMENT, help="concept to erase; repeat for several")
    parser.add_argument("--anchor", default="", help="concept that replaces the target")
    parser.add_argument("--pictures", type=int, default=32, help="number of pictures in each group")
    args = parser.parse_args(argv)
    settings = {k: parse_value(v) for k, _, v in (s.partition("=") for s in args.settings)}
    model, bundle = efface.load(args.model), locate(args.model)
    known = world.load(bundle)
    judges = [s for s in build_scorers(bundle, known.backgrounds) if s.question in ("object", "style")]
    OUT.mkdir(parents=True, exist_ok=True)
    for target in args.target or ["cat"]:
        erasure = Erasure(known.expand((target,)), anchor=args.anchor)
        suite = build_suite(erasure, known, {group: args.pictures for group in GROUPS})
        with tempfile.TemporaryDirectory() as folder:
            edit, start = Path(folder) / "edit.safetensors", time.perf_counter()
            methods.build_method(args.method, model, settings).fit(model, erasure).save(edit)
            seconds = time.perf_counter() - start
            record = evaluate(model, edit, suite, judges, Path(folder), Settings(), image_store=OUT / "images")
            lost = count_failures(read_rows(Path(folder)))
        rates = {g: record.find(m, g) for g, m in GROUPS.items()}
        shown = {g: [round(100 * (e.value or 0)) for e in (r.base, r.edited)] for g, r in rates.items() if r}
        line = {"method": args.method, "concept": target, "settings": settings, "n": args.pictures, **shown}
        with (OUT / "tried.jsonl").open("a") as file:
            file.write(json.dumps(line | {"anchor": args.anchor, "seconds": round(seconds), "lost": lost}) + "\n")
        print(json.dumps(line | {"seconds": round(seconds), "lost": lost}), flush=True)


if __name__ == "__main__":
    main()
