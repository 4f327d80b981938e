"""Attacks on methods at several strengths: `python -m recipes.robustness recipes/robustness.toml`.

Finished arms are read back, an interrupted one goes on, and where the recipe gains an attack only that is made. Each
method's own strength comes first, over all concepts, and meets every attack; weaker ones, and variants after them, meet
the claim's. Controls on the untouched base are attacked once for all.
"""

import argparse
import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import efface
from efface import methods
from efface.attacks import BASELINE, configured
from efface.concept import Erasure
from efface.evaluation.evaluate import Settings
from efface.files import write_whole
from efface.models.base import Model
from efface.records.attacks import AttackRecord, parse
from efface.robustness.campaign import Campaign, attack
from efface.robustness.conditions import find_aliases
from efface.scorers import build_scorers
from efface.suites import world
from efface.suites.world import locate

from .erasing import attempt, judges_of, suite_of
from .robustness_page import UNTOUCHED, Arm, Point, attacks_of, page


@dataclass(frozen=True)
class Stage:
    """What every arm is run with."""

    recipe: Mapping[str, Any]
    model: Model
    known: world.World

    @property
    def out(self) -> Path:
        return Path(self.recipe["out"])

    def point(self, arm: Arm, start: bool) -> Point | None:
        """Erase, evaluate and attack, or read back what was done; None where nothing is started and it was not."""
        where = self.out / arm.folder
        if not start and not (where / "attacked.json").exists():
            return None
        where, record, fitted = attempt(
            self.model, self.recipe, arm.target, arm.method, self.known, arm.settings, where
        )
        attacked = self._attacked(arm, where / "edit.safetensors", where / "attacked.json", 1.0, start)
        return Point(arm, record, attacked, fitted["seconds"])

    def untouched(self, like: Arm, start: bool) -> Point | None:
        """The base attacked by the concept's own name: the edit of an arm on that concept, at strength 0."""
        done = self.out / UNTOUCHED / f"{like.target}.json"
        edit = self.out / like.folder / "edit.safetensors"
        if not done.exists() and not (start and edit.exists()):
            return None
        arm = Arm(like.target, UNTOUCHED, -1, {})
        return Point(arm, None, self._attacked(arm, edit, done, 0.0, start), 0)

    def _attacked(self, arm: Arm, edit: Path, done: Path, strength: float, start: bool) -> AttackRecord:
        names = attacks_of(self.recipe, arm)
        if done.exists():
            attacked = parse(json.loads(done.read_text()))
            if not start or {t.attack for t in attacked.measures} >= set(names):
                return attacked
        rows = self.recipe["rows"]
        erasure = Erasure(self.known.expand((arm.target,)))
        attacked = attack(
            self.model,
            edit,
            suite_of(erasure, self.known, {group: rows for group in ("target", "neighbour", "style")}),
            build_scorers(locate(self.recipe["model"]), self.known.backgrounds, judges_of(self.recipe)),
            done.with_suffix(""),
            [
                configured(name, self.recipe["model"], overrides=self.recipe.get("attack", {}).get(name))
                for name in names
                if name != BASELINE
            ],
            find_aliases(self.known),
            settings=Settings(strength=strength),
            campaign=Campaign(rows=rows, controls=self.recipe["controls"], skip=True),
            store=self.out / "attacks",
        )
        write_whole(done, attacked.model_dump_json(indent=1) + "\n")
        return attacked


def arms(
    recipe: Mapping[str, Any], concepts: Sequence[str], names: Sequence[str], seeds: int | None = None, points: int = 99
) -> list[Arm]:
    """The arms as they are run: of every method its own strength, then weaker ones, and so for each training seed.

    The recipe's variants come last. `points` strengths of each method: its own, its weakest, and others evenly between.
    """
    found = []
    for seed in recipe["seeds"][:seeds]:
        for turn in range(points):
            for target in concepts:
                for method in names:
                    ((field, values),) = recipe["strengths"][method].items()
                    seeded = any(f.name == "seed" for f in dataclasses.fields(methods.get(method)))
                    ranks = spread(len(values), points)
                    if turn < len(ranks) and (seeded or not seed):
                        settings = {field: values[ranks[turn]]} | ({"seed": seed} if seed else {})
                        found.append(Arm(target, method, ranks[turn], settings))
    for variant in recipe.get("variants", ()):
        on = [c for c in recipe["variants_on"] if c in concepts and variant["method"] in names]
        found += [Arm(target, variant["method"], -1, variant["settings"], variant=True) for target in on]
    return found


def spread(n: int, points: int) -> list[int]:
    """So many of n places: the last, the first, and others evenly between, from the last downwards."""
    points = min(points, n)
    return [n - 1] if points == 1 else [round((n - 1) * i / (points - 1)) for i in reversed(range(points))]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--concept", action="append", help="a concept; repeat for several. The recipe's by default")
    parser.add_argument("--method", action="append", help="a method; repeat for several. The recipe's by default")
    parser.add_argument("--seeds", type=int, help="how many training seeds; the recipe's by default")
    parser.add_argument("--points", type=int, default=99, help="how many strengths of each method, evenly spread")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--done", action="store_true", help="start nothing: write the page of all that is finished")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = tomllib.loads(args.recipe.read_text())
    stage = Stage(recipe, efface.load(recipe["model"]), world.load(locate(recipe["model"])))
    every = [c for split in recipe["concepts"].values() for c in split]
    if unknown := sorted({*(args.concept or [])} - {*every}) + sorted({*(args.method or [])} - {*recipe["strengths"]}):
        raise SystemExit(f"{unknown[0]} is not in {args.recipe}: add it there, with its strengths or its anchor")
    wanted = arms(recipe, args.concept or every, args.method or list(recipe["strengths"]), args.seeds, args.points)
    points: list[Point] = []
    for arm in arms(recipe, every, list(recipe["strengths"])):
        start = arm in wanted and not args.done
        for made in (stage.point, stage.untouched):
            known = made == stage.untouched and (UNTOUCHED, arm.target) in {
                (p.arm.method, p.arm.target) for p in points
            }
            if not known and (point := made(arm, start)):
                points.append(point)
                print(point.arm.method, point.arm.said, point.arm.target, flush=True)
                write_whole(Path(recipe["page"]), page(recipe, args.recipe, points))


if __name__ == "__main__":
    main()
