"""The page of `recipes.robustness`: attacks by method and strength, their controls, and twins at equal preservation."""

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efface.functional.rates import bootstrap, cluster_means
from efface.records.attacks import AttackRecord
from efface.records.report import Estimate, Record

RATES = ("esr1/target", "psr1/neighbour", "psr1/unseen")
UNTOUCHED = "untouched"
"""The arm of strength 0: the base, attacked by the concept's own name."""
LEAST = 4
"""Concepts from which a mean difference gets an interval: a bootstrap over fewer is too narrow to be one."""


@dataclass(frozen=True)
class Arm:
    """One method at one strength, with one training seed, on one concept."""

    target: str
    method: str
    rank: int
    """Place of the strength among the method's, the weakest first."""
    settings: Mapping[str, Any]
    variant: bool = False
    """Whether it is one of the recipe's variants, which are no strengths of the method."""

    @property
    def seed(self) -> int:
        return self.settings.get("seed", 0)

    @property
    def said(self) -> str:
        return ", ".join(f"{k} {v}" for k, v in self.settings.items())

    @property
    def folder(self) -> str:
        return f"{self.method}/{self.said.replace(', ', '_').replace(' ', '-')}/{self.target}"


def attacks_of(recipe: Mapping, arm: Arm) -> list[str]:
    """What an arm is attacked by: at a method's own strength by all, at weaker ones by the claim's attack alone."""
    strongest = arm.method == UNTOUCHED or all(arm.rank == len(v) - 1 for v in recipe["strengths"][arm.method].values())
    own = strongest and not arm.variant
    return list(recipe["attacks"]) if own else [recipe["claim"]["attack"]]


@dataclass(frozen=True)
class Point:
    """What an arm came to."""

    arm: Arm
    record: Record | None
    """None for the untouched base."""
    attacked: AttackRecord
    fitted: float
    """Seconds that fitting took."""

    def rate(self, name: str, who: str = "edited") -> Estimate | None:
        found = self.record.find(*name.split("/")) if self.record else None
        return getattr(found, who) if found else None

    def success(self, name: str) -> Estimate | None:
        measure = self.attacked.find(name)
        return measure.after if measure and not measure.missing else None


def cell(found: Estimate | None) -> str:
    if found is None or found.value is None:
        return "–"
    return f"{100 * found.value:.0f} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def both(point: Point, name: str) -> str:
    base = point.rate(name, "base")
    return f"{cell(point.rate(name))} ({100 * base.value:.0f})" if base and base.value is not None else "–"


def similarity(point: Point) -> str:
    """CLIP's, of kept things that fitting never saw, the base's in brackets."""
    edited, base = (point.rate("clip/unseen", who) for who in ("edited", "base"))
    return f"{edited.value:.3f} ({base.value:.3f})" if edited and base and edited.value and base.value else "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def attack_table(recipe: Mapping, points: Sequence[Point]) -> list[str]:
    """One line an arm: attack success by attack, beside erasure and preservation."""
    head = ["concept", "method", "strength", "ESR-1 (base)", "PSR-1 neighbours (base)", "PSR-1 never seen (base)"]
    head += ["CLIP (base)", "unattacked", "random prefixes", *recipe["attacks"], "nothing broke", "fitted in s"]
    rows = []
    for p in sorted(points, key=lambda p: (concepts(points).index(p.arm.target), p.arm.method != UNTOUCHED)):
        rates = [both(p, name) for name in RATES]
        baseline = next((t.baseline for t in p.attacked.measures if t.condition == "target"), None)
        success = [cell(p.success(name)) for name in recipe["attacks"]]
        fitted = f"{p.fitted:.0f}" if p.record else "–"
        who = [p.arm.target, p.arm.method, p.arm.said or "0"]
        before = cell(p.attacked.conditions[0].before)
        robust = cell(p.attacked.robust if attacks_of(recipe, p.arm) == recipe["attacks"] else None)
        rows.append([*who, *rates, similarity(p), before, cell(baseline), *success, robust, fitted])
    return table(head, rows)


def concepts(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(p.arm.target for p in points))


def means_table(recipe: Mapping, points: Sequence[Point]) -> list[str]:
    """One line a method at its own strength: means over concepts, the first seed's, with intervals over concepts."""
    strongest = {p.arm.method: max(q.arm.rank for q in points if q.arm.method == p.arm.method) for p in points}
    own = [p for p in points if p.arm.rank == strongest[p.arm.method] and p.arm.seed == recipe["seeds"][0]]
    head = ["method", "concepts", "ESR-1", "PSR-1 neighbours", "PSR-1 never seen", "unattacked", *recipe["attacks"]]
    rows = []
    for method in dict.fromkeys(p.arm.method for p in own):
        mine = [p for p in own if p.arm.method == method]
        found = [{p.arm.target: p.rate(name) for p in mine} for name in RATES]
        found.append({p.arm.target: p.attacked.conditions[0].before for p in mine})
        found += [{p.arm.target: p.success(name) for p in mine} for name in recipe["attacks"]]
        found.append({p.arm.target: p.attacked.robust for p in mine})
        rows.append([method, str(len(mine)), *map(mean, found)])
    return table([*head, "nothing broke"], rows)


def mean(found: Mapping[str, Estimate | None]) -> str:
    by_concept = {name: e.value if e else None for name, e in found.items()}
    judged = [v for v in by_concept.values() if v is not None]
    interval = bootstrap({name: [v] for name, v in by_concept.items()}) if len(judged) > 1 else None
    spread = f" [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]" if interval else ""
    return f"{100 * statistics.fmean(judged):.0f}{spread}" if judged else "–"


def controls_table(recipe: Mapping, points: Sequence[Point]) -> list[str]:
    """What each attack does where it must: gains over random prefixes, and success in the controls."""
    head = ["concept", "method", "strength", "attack", "gain over random prefixes", "on a kept concept", "on the base"]
    rows = []
    for p, name in itertools.product(points, recipe["attacks"]):
        own = p.attacked.find(name)
        if own is None or own.missing or p.arm.method == UNTOUCHED:
            continue
        others = [p.attacked.find(name, where) for where in ("control-kept", "control-base")]
        shown = [cell(t.after) if t and not t.missing else "–" for t in others]
        lift = f"{100 * g.value:+.0f} [{100 * g.low:+.0f}, {100 * g.high:+.0f}]" if (g := own.lift) else "–"
        cost = [f"{own.queries:.1f}", f"{own.seconds:.0f}"]
        rows.append([p.arm.target, p.arm.method, p.arm.said, name, lift, *shown, *cost])
    return table([*head, "queries", "s"], rows)


def alarm_table(points: Sequence[Point]) -> list[str]:
    """Every alarm, and the arms that raise it in the same words."""
    arms: dict[tuple[str, str, str], list[str]] = {}
    for p in points:
        for alarm in p.attacked.alarms:
            arms.setdefault((p.arm.target, alarm.name, alarm.raised_when), []).append(f"{p.arm.method} {p.arm.said}")
    rows = [[*alarm, "; ".join(arm.strip() for arm in raised)] for alarm, raised in sorted(arms.items())]
    return table(["concept", "alarm", "raised because", "by"], rows)


def at_equal(points: Sequence[Point], untouched: Point | None, attack: str, below: float) -> float | None:
    """The attack's success rate where the neighbours' PSR-1 is `below` under the base's, between two strengths.

    The weakest strength of all is the untouched base under the same attack. None where no strength goes so far down.
    """
    ordered = sorted(points, key=lambda p: p.arm.rank)
    base, start = ordered[0].rate("psr1/neighbour", "base"), untouched.success(attack) if untouched else None
    if base is None or base.value is None or start is None:
        return None
    found = [(p.rate("psr1/neighbour"), p.success(attack)) for p in ordered]
    curve = [(base.value, start.value), *((kept.value, asr.value) for kept, asr in found if kept and asr)]
    wanted = base.value - below
    for (high, before), (low, after) in itertools.pairwise(curve):
        if None not in (high, before, low, after) and high >= wanted >= low:
            return before + (0.0 if high == low else (high - wanted) / (high - low)) * (after - before)
    return None


def claim_table(recipe: Mapping, points: Sequence[Point], below: float) -> list[str]:
    """Each pair at equal preservation, by concept and training seed, and over all."""
    name = recipe["claim"]["attack"]
    untouched = {p.arm.target: p for p in points if p.arm.method == UNTOUCHED}
    runs: dict[tuple[str, str, int], list[Point]] = {}
    for p in points:
        runs.setdefault((p.arm.method, p.arm.target, p.arm.seed), []).append(p)
    rows = []
    for plain, pruned in recipe["claim"]["pairs"]:
        gaps: dict[str, list[float | None]] = {}
        firsts: dict[str, list[float | None]] = {}
        for target, seed in [(t, s) for m, t, s in runs if m == plain and (pruned, t, s) in runs]:
            found = [at_equal(runs[m, target, seed], untouched.get(target), name, below) for m in (plain, pruned)]
            gap = None if None in found else found[0] - found[1]  # type: ignore[operator]
            gaps.setdefault(target, []).append(gap)
            firsts.setdefault(target, []).append(found[0] if gap is not None else None)
            said = [f"{100 * v:.0f}" if v is not None else "not reached" for v in found]
            told = f"{100 * gap:+.0f}" if gap is not None else "–"
            share = f"{-100 * gap / found[0]:+.0f} %" if gap is not None and found[0] else "–"
            rows.append([f"{plain} / {pruned}", target, str(seed), *said, told, share])
        if judged := cluster_means(gaps):
            interval, start = bootstrap(gaps) if len(judged) >= LEAST else None, statistics.fmean(cluster_means(firsts))
            spread = f" [{100 * interval[0]:+.0f}, {100 * interval[1]:+.0f}]" if interval else ", no interval"
            middle = f"**{100 * statistics.fmean(judged):+.1f}{spread}**"
            share = f"**{-100 * statistics.fmean(judged) / start:+.0f} %**" if start else "–"
            rows.append([f"**{plain} / {pruned}**", f"mean of {len(judged)}", "", "", "", middle, share])
    return table(["pair", "concept", "seed", "plain", "pruned", "plain − pruned, points", "relative"], rows)


def variant_table(recipe: Mapping, points: Sequence[Point]) -> list[str]:
    """Variants of the pruned methods, each beside the unpruned twin where that keeps as much of the neighbours."""
    name, twin = recipe["claim"]["attack"], {pruned: plain for plain, pruned in recipe["claim"]["pairs"]}
    untouched = {p.arm.target: p for p in points if p.arm.method == UNTOUCHED}
    rows = []
    for p in (p for p in points if p.arm.variant):
        kept, base = p.rate("psr1/neighbour"), p.rate("psr1/neighbour", "base")
        beside = None
        if kept and base and kept.value is not None and base.value is not None:
            plain = [
                q
                for q in points
                if (q.arm.method, q.arm.target, q.arm.seed) == (twin[p.arm.method], p.arm.target, recipe["seeds"][0])
            ]
            beside = at_equal(plain, untouched.get(p.arm.target), name, base.value - kept.value) if plain else None
        said = f"{100 * beside:.0f}" if beside is not None else "not reached"
        share = p.record.history["pruned"] if p.record else 0.0
        rates = [both(p, rate) for rate in RATES]
        rows.append([p.arm.method, p.arm.said, p.arm.target, f"{100 * share:.1f}", *rates, cell(p.success(name)), said])
    head = ["method", "variant", "concept", "% pruned", "ESR-1 (base)", "PSR-1 neighbours (base)"]
    head += ["PSR-1 never seen (base)", name, f"{name} of the unpruned at this PSR-1"]
    return table(head, rows)


def page(recipe: Mapping, path: Path, points: Sequence[Point]) -> str:
    one = next(p for p in points if p.record)
    assert one.record
    drawing, packages = one.record.drawing, ", ".join(f"{k} {v}" for k, v in one.record.packages.items())
    sizes = ", ".join(f"{n} {g}" for g, n in recipe["sizes"].items())
    claim = recipe["claim"]
    said = "; ".join(f"{k}: {v}" for k, v in recipe.get("reported", {}).items())
    swept = [p for p in points if not p.arm.variant]
    parts = [
        "# Attacks on the embedded model",
        "",
        f"Made by `python -m recipes.robustness {path}`; what of its design was not run is not below.",
        f"Rates in percent with 95 % intervals. Under attack {recipe['rows']} prompts a concept, else {sizes}",
        "pictures a concept. Attack success is UnlearnDiffAtk's: (shown before + broken by the attack) / prompts; a",
        "success must convince both judges. *untouched* is the base, attacked by the concept's own name: what an edit",
        "of no strength would give. Strengths below a method's own meet only the attack that twins are compared by.",
        "The embedded model shows mechanisms, not Stable Diffusion's numbers.",
        f"Drawn with {drawing.scheduler}, {drawing.steps} steps, guidance {drawing.guidance}, {drawing.compute}.",
        f"{packages}.",
        "",
        recipe.get("findings", "").strip(),
        "",
        "## Methods at their own strength, means over concepts",
        "",
        *means_table(recipe, swept),
        "",
        "## Pruning against its unpruned twin, at equal preservation",
        "",
        f"Success of {claim['attack']} where the neighbours' PSR-1 is so many points under the untouched base's, by",
        "interpolation between strengths. Positive: pruning withstands more. Intervals resample four concepts or more.",
        f"Reported (other model): {said}.",
        "",
    ]
    for below in claim["below"]:
        lines = claim_table(recipe, swept, below)
        lines = lines if len(lines) > 2 else ["Of no pair both were run so far."]
        parts += [f"### {100 * below:.0f} points under the base", "", *lines, ""]
    if len(swept) < len(points):
        parts += ["## What pruning depends on", "", recipe.get("about_variants", "").strip(), ""]
        parts += [*variant_table(recipe, points), ""]
    parts += ["## Every concept and strength", "", *attack_table(recipe, swept), ""]
    parts += ["## What the attacks do in the controls", "", *controls_table(recipe, points), ""]
    parts += ["## Alarms", "", "What each means: [alarms](alarms.md).", "", *alarm_table(points), ""]
    return "\n".join(parts)
