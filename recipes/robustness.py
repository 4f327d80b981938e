"""Attacks on every method, and pruning against its unpruned twin: `python -m recipes.robustness RECIPE.toml`.

Finished parts are read back, an interrupted one goes on; controls on the untouched base are attacked once for all.
"""

import argparse
import itertools
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import efface
from efface.attacks import configured
from efface.concept import Erasure
from efface.evaluate import Estimate, Record, write_whole
from efface.evaluate.attack_record import AttackRecord
from efface.evaluate.attacking import Campaign, attack, lore_of
from efface.functional.rates import bootstrap
from efface.models.base import Model
from efface.scorers import panel
from efface.suites import locate, world

from .run import attempt, judges_of, suite_of


@dataclass(frozen=True)
class Arm:
    """One method at one strength, with one training seed, on one concept."""

    target: str
    method: str
    settings: Mapping[str, Any]
    attacks: tuple[str, ...]

    @property
    def folder(self) -> str:
        said = "_".join(f"{k}-{v}" for k, v in sorted(self.settings.items())) or "own"
        return f"{self.method}/{said}/{self.target}"


@dataclass(frozen=True)
class Point:
    """What an arm came to."""

    arm: Arm
    record: Record
    attacked: AttackRecord

    def rate(self, name: str, who: str = "edited") -> Estimate | None:
        found = self.record.find(*name.split("/"))
        return getattr(found, who) if found else None

    def success(self, name: str) -> Estimate | None:
        trial = self.attacked.find(name)
        return trial.after if trial and not trial.missing else None


def run(model: Model, recipe: Mapping, known: world.World, arm: Arm, start: bool) -> Point | None:
    """Erase, evaluate and attack, or read back what was done; None where nothing is to be started and it was not."""
    where = Path(recipe["out"]) / arm.folder
    done = where / "attacked.json"
    if not start and not done.exists():
        return None
    where, record, _ = attempt(model, recipe, arm.target, arm.method, known, arm.settings, where)
    if done.exists():
        attacked = AttackRecord.model_validate(json.loads(done.read_text()))
        if {t.attack for t in attacked.trials} >= set(arm.attacks):
            return Point(arm, record, attacked)
    judges = panel(locate(recipe["model"]), known.backgrounds, judges_of(recipe))
    erasure = Erasure(known.expand((arm.target,)))
    attacked = attack(
        model,
        where / "edit.safetensors",
        suite_of(erasure, known, {g: recipe["rows"] for g in ("target", "neighbour", "style")}),
        judges,
        Path(recipe["out"]),
        [configured(name, recipe["model"]) for name in arm.attacks],
        lore_of(known),
        campaign=Campaign(rows=recipe["rows"], controls=recipe["controls"], skip=True),
    )
    write_whole(done, attacked.model_dump_json(indent=1) + "\n")
    return Point(arm, record, attacked)


def table_arms(recipe: Mapping, concepts: Sequence[str]) -> Iterator[Arm]:
    for target in concepts:
        for method in recipe["table"]["methods"]:
            yield Arm(target, method, {}, tuple(recipe["attacks"]))


def claim_arms(recipe: Mapping, concepts: Sequence[str], seeds: Sequence[int], points: int) -> Iterator[Arm]:
    claim = recipe["claim"]
    for seed in seeds:
        for target in concepts:
            for method in (m for pair in claim["pairs"] for m in pair):
                for steps in thinned(claim["strengths"][method], points):
                    yield Arm(target, method, {"steps": steps, "seed": seed}, (claim["attack"],))


def thinned(values: Sequence[int], count: int) -> list[int]:
    """`count` of the values, the first, the last, and some evenly between."""
    if count >= len(values):
        return list(values)
    if count < 2:
        raise ValueError(f"a strength cannot be swept at {count} points; give at least 2")
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def at_equal(points: Sequence[Point], attack: str, below: float) -> float | None:
    """The attack's success rate where the neighbours' PSR-1 is `below` under the base's, between two strengths.

    The untouched base is the weakest strength: it keeps all, and its rate is that of the prompts themselves. None where
    no strength goes so far down.
    """
    base = points[0].rate("psr1/neighbour", "base")
    if base is None or base.value is None:
        return None
    named = points[0].attacked.grounds[0].untouched.value
    pairs = [(base.value, named)]
    for point in sorted(points, key=lambda p: p.arm.settings["steps"]):
        kept, success = point.rate("psr1/neighbour"), point.success(attack)
        if kept and success:
            pairs.append((kept.value, success.value))
    wanted = base.value - below
    for (high, before), (low, after) in itertools.pairwise(pairs):
        if None not in (high, before, low, after) and high >= wanted >= low:
            share = 0.0 if high == low else (high - wanted) / (high - low)
            return before + share * (after - before)
    return None


def cell(found: Estimate | None) -> str:
    if found is None or found.value is None:
        return "–"
    return f"{100 * found.value:.0f} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def attack_table(recipe: Mapping, points: Sequence[Point]) -> list[str]:
    """One line a method and concept: attack success by attack, beside erasure and preservation."""
    names = recipe["attacks"]
    head = ["concept", "method", "ESR-1 (base)", "PSR-1 neighbours (base)", "PSR-1 never seen (base)", "CLIP (base)"]
    head += ["shown unattacked", "random prefixes", *names, "nothing broke"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for p in points:
        rates = [both(p, name) for name in ("esr1/target", "psr1/neighbour", "psr1/unseen")]
        clip = [p.rate("clip/unseen", who) for who in ("edited", "base")]
        similar = " ".join(
            f"{e.value:.3f}" if i == 0 else f"({e.value:.3f})" for i, e in enumerate(clip) if e and e.value
        )
        floor = next((t.floor for t in p.attacked.trials if t.where == "edited"), None)
        cells = [cell(p.attacked.grounds[0].before), cell(floor), *(cell(p.success(n)) for n in names)]
        line = [p.arm.target, p.arm.method, *rates, similar, *cells, cell(p.attacked.robust)]
        lines.append("| " + " | ".join(line) + " |")
    return lines


def both(point: Point, name: str) -> str:
    base = point.rate(name, "base")
    return f"{cell(point.rate(name))} ({100 * base.value:.0f})" if base and base.value is not None else "–"


def controls_table(recipe: Mapping, points: Sequence[Point]) -> list[str]:
    """What each attack does where it must: gains over random prefixes, and success in the controls."""
    head = [
        "concept",
        "method",
        "attack",
        "gain over random prefixes",
        "on a kept concept",
        "on the base",
        "queries",
        "s",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for p in points:
        for name in recipe["attacks"]:
            own = p.attacked.find(name)
            if own is None or own.missing:
                continue
            others = [p.attacked.find(name, where) for where in ("kept", "base")]
            shown = [cell(t.after) if t and not t.missing else "–" for t in others]
            g = own.gain
            gain = f"{100 * g.value:+.0f} [{100 * g.low:+.0f}, {100 * g.high:+.0f}]" if g else "–"
            cost = [f"{own.queries:.1f}", f"{own.seconds:.0f}"]
            lines.append("| " + " | ".join([p.arm.target, p.arm.method, name, gain, *shown, *cost]) + " |")
    return lines


def claim_table(recipe: Mapping, points: Sequence[Point]) -> list[str]:
    """Each pair at equal preservation, by concept and over all."""
    claim = recipe["claim"]
    name, below = claim["attack"], claim["below"]
    runs: dict[tuple[str, str, int], list[Point]] = {}
    for p in points:
        runs.setdefault((p.arm.method, p.arm.target, p.arm.settings["seed"]), []).append(p)
    head = ["pair", "concept", "seed", *("plain", "pruned"), "plain − pruned, points", "relative"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for plain, pruned in claim["pairs"]:
        by_concept: dict[str, list[float | None]] = {}
        for target, seed in dict.fromkeys((t, s) for m, t, s in runs if m == plain):
            found = [
                at_equal(runs.get((m, target, seed), []) or [], name, below) if (m, target, seed) in runs else None
                for m in (plain, pruned)
            ]
            a, b = found
            gap = None if a is None or b is None else a - b
            by_concept.setdefault(target, []).append(gap)
            said = [f"{100 * v:.0f}" if v is not None else "not reached" for v in found]
            points_ = f"{100 * gap:+.0f}" if gap is not None else "–"
            share = f"{100 * gap / a:+.0f} %" if gap is not None and a else "–"
            lines.append("| " + " | ".join([f"{plain} / {pruned}", target, str(seed), *said, points_, share]) + " |")
        judged = [v for values in by_concept.values() for v in values if v is not None]
        interval = bootstrap(by_concept)
        mean = f"{100 * sum(judged) / len(judged):+.1f}" if judged else "–"
        spread = f" [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]" if interval else ""
        lines.append(f"| **{plain} / {pruned}** | mean of {len(judged)} |  |  |  | **{mean}{spread}** |  |")
    return lines


def sweep_table(recipe: Mapping, points: Sequence[Point]) -> list[str]:
    """Every strength that was run."""
    name = recipe["claim"]["attack"]
    head = ["concept", "method", "updates", "seed", "ESR-1", "PSR-1 neighbours (base)", f"{name}", "shown unattacked"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for p in points:
        how = [p.arm.target, p.arm.method, str(p.arm.settings["steps"]), str(p.arm.settings["seed"])]
        before = cell(p.attacked.grounds[0].before)
        seen = [cell(p.rate("esr1/target")), both(p, "psr1/neighbour"), cell(p.success(name)), before]
        lines.append("| " + " | ".join([*how, *seen]) + " |")
    return lines


def page(recipe: Mapping, command: str, table: Sequence[Point], claim: Sequence[Point]) -> str:
    one = [*table, *claim][0]
    drawing, packages = one.record.drawing, ", ".join(f"{k} {v}" for k, v in one.record.packages.items())
    sizes = ", ".join(f"{n} {g}" for g, n in recipe["sizes"].items())
    parts = [
        "# Attacks on the embedded model",
        "",
        f"Made by `{command}`. Rates in percent with 95 % intervals. Under attack",
        f"{recipe['rows']} prompts a concept, else {sizes} pictures a concept. Attack success is",
        "UnlearnDiffAtk's: (shown before + broken by the attack) / prompts; a success must convince both judges.",
        "The embedded model shows mechanisms, not Stable Diffusion's numbers.",
        f"Drawn with {drawing.scheduler}, {drawing.steps} steps, guidance {drawing.guidance}, {drawing.compute}.",
        f"{packages}.",
        "",
        recipe.get("findings", "").strip(),
        "",
    ]
    if table:
        parts += ["## Methods by attack", "", *attack_table(recipe, table), ""]
        parts += ["## What the attacks do in the controls", "", *controls_table(recipe, table), ""]
    if claim:
        below = 100 * recipe["claim"]["below"]
        said = "; ".join(f"{k}: {v}" for k, v in recipe.get("reported", {}).items())
        parts += [
            "## Pruning against its unpruned twin, at equal preservation",
            "",
            f"Success of {recipe['claim']['attack']} where the neighbours' PSR-1 is {below:.0f} points under the",
            "untouched base's, by interpolation between strengths; intervals resample concepts.",
            f"Reported (other model): {said}.",
            "",
            *claim_table(recipe, claim),
            "",
            "### Every strength",
            "",
            *sweep_table(recipe, claim),
            "",
        ]
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--only", choices=["table", "claim"], help="one half of the page's arms; both by default")
    parser.add_argument(
        "--concept", action="append", help="a concept; repeat for several. All of the recipe by default"
    )
    parser.add_argument("--seeds", type=int, help="how many training seeds; all of the recipe by default")
    parser.add_argument("--points", type=int, default=99, help="how many strengths of each sweep; all by default")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--done", action="store_true", help="start nothing: write the page of what is finished")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = tomllib.loads(args.recipe.read_text())
    model, known = efface.load(recipe["model"]), world.load(locate(recipe["model"]))
    concepts = args.concept or [c for split in recipe["concepts"].values() for c in split]
    halves: dict[str, list[Point]] = {"table": [], "claim": []}
    seeds = recipe["seeds"][: args.seeds]
    arms = {
        "table": list(table_arms(recipe, concepts)),
        "claim": list(claim_arms(recipe, concepts, seeds, args.points)),
    }
    command = " ".join(["python -m recipes.robustness", str(args.recipe)])
    for half, todo in arms.items():
        for arm in todo:
            start = not args.done and args.only in (None, half)
            if point := run(model, recipe, known, arm, start):
                halves[half].append(point)
                print(half, arm.folder, flush=True)
                write_whole(Path(recipe["page"]), page(recipe, command, halves["table"], halves["claim"]))


if __name__ == "__main__":
    main()
