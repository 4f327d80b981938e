"""Compares time and quality after the same updates with the procedure in `benchmarks.plain`.

    python -m benchmarks.updates                      # the papers' 1000 updates and 50 steps; hours on a CPU
    python -m benchmarks.updates --updates 40 --picture-updates 4 --pictures 16   # a look
    python -m benchmarks.updates --quality --fraction 0.5 --targets dog --targets violin --targets hamburger

Wall time and denoiser rows are those of one run each. Bytes are those of a short run of their own, because counting
them slows the run. For the quality, both edits are drawn and judged as a recipe does. "Not worse" means that the upper
bound of a paired loss is at most three points, which needs several targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import tyro

import efface
from efface import methods
from efface.api.resources import expand
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.edits.provenance import describe_run
from efface.functional.rates import bootstrap, cluster_means
from efface.methods.states import build_remain_pictures, choose_labels

from .common import (
    Cost,
    describe_cost,
    describe_flags,
    describe_machine,
    format_table,
    list_weights,
    measure_peak,
    measure_work,
    write,
)
from .plain import PAPERS, REFERENCES, Asked

METRICS = ("esr1/target", "psr1/neighbour", "psr1/unseen")
SIZES = {"target": 320, "neighbour": 96, "style": 96, "unseen": 192}
ALLOWED_LOSS = 0.03


@dataclass(frozen=True, kw_only=True)
class Updates:
    """Compares the same number of updates by the paper's procedure and by ours."""

    methods: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Of esd, eap, abo, p-esd, erasediff; all of them where none is given."""
    targets: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Concepts to erase; repeat the flag for several; cat where none is given."""
    seeds: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """Of the random choices of both sides; repeat the flag for several; 0 where none is given."""
    model: str = "glyphs"
    """A bundled model, or a folder of one of that make."""
    updates: int = 1000
    """Of the weights, for methods on trajectories."""
    picture_updates: int = 60
    """Of the weights, for EraseDiff."""
    pictures: int = 800
    """Pictures of each kind that EraseDiff draws."""
    baseline_updates: int = 0
    """Of the baseline, where the same number would take hours: its seconds and rows are then scaled to as many as ours,
    for each of its updates asks for the same work. 0, and EraseDiff, runs as many as ours."""
    draw_steps: int = 50
    """Sampling steps of what is drawn to train on."""
    sampler: Literal["ddim", "dpm", "unipc"] = "ddim"
    """What ours records trajectories by; the baseline's are DDIM's."""
    our_steps: int = 0
    """Sampling steps of what ours records: with dpm or unipc fewer do; 0 takes as many as the baseline."""
    batch: int = 1
    """Rows of ours in an update; the papers' is 1. EraseDiff's is the method's own on both sides."""
    paths: int = 0
    """Our trajectories for each prompt; 0 takes as many as give `states` for every row that is read of a drawing."""
    states: float = 4.0
    """Of ours for every row, which takes one at random: fewer show fewer pictures, and erase less."""
    draw_batch: int = 8
    """Pictures that ours draws at once; what it records lies on disk, for the baseline keeps none."""
    keep_paths: int = 1
    """Our trajectories for each candidate of EAP."""
    refresh: int = 0
    """Updates after which ours draws the target's trajectories anew, by the student of that moment; 0 draws them once,
    by the base, as EAP's candidates always are."""
    short: int = 2
    """Updates of the runs whose bytes are counted."""
    quality: bool = False
    """Draw and judge both edits."""
    fraction: float = 1.0
    """The share of each group's pictures that is drawn for it."""
    out: Path = Path("out/benchmarks/updates")
    """Folder for edits, judgements and the result."""

    def run(self) -> None:
        if self.quality and self.baseline_updates:
            raise SystemExit("--quality compares equal numbers of updates: leave --baseline-updates away")
        rows = []
        for name in self.methods or tuple(REFERENCES):
            for target, seed in product(self.targets or ("cat",), self.seeds or (0,)):
                row = self.compare(name, target, seed)
                rows.append(row)
                print(_format_lines([row]), flush=True)
                write(self.out, "updates", {"stamp": describe_machine(flags=describe_flags(self)), "rows": rows})
        print(_format_lines(rows))
        if self.quality:
            print(_measure_quality(rows))

    def compare(self, name: str, target: str, seed: int) -> dict[str, Any]:
        """Compares one method on one target with the baseline."""
        count = self.picture_updates if name == "erasediff" else self.updates
        ours, edit = self.measure_ours(name, target, count, seed)
        asked = self.build_request(name, target, count, edit, seed)
        made = min(self.baseline_updates or count, count) if name != "erasediff" else count
        baseline, values = self.measure_baseline(name, dataclasses.replace(asked, updates=made))
        baseline = scale_equations(baseline, count / made)
        row = {
            "method": name,
            "target": target,
            "seed": seed,
            "updates": count,
            "baseline_updates": made,
            "against": "the paper's procedure" if name in PAPERS else "our unoptimised reference",
            "ours": describe_cost(ours),
            "plain": describe_cost(baseline),
            "ours_bytes": self.measure_our_bytes(name, target),
            "plain_bytes": self.measure_plain_bytes(name, dataclasses.replace(asked, updates=self.short)),
        }
        row |= {
            "faster": baseline.seconds / ours.seconds,
            "faster_processor": baseline.processor / ours.processor,
            "fewer_rows": baseline.rows / ours.rows,
            "bytes_share": row["ours_bytes"] / row["plain_bytes"],
        }
        return row | (self.judge_edit(name, target, seed, edit, values) if self.quality else {})

    def build_method(self, name: str, model: Any, count: int, seed: int = 0) -> Any:
        """Builds our method with stored trajectories, at the papers' batch and number of steps."""
        more: dict[str, Any] = {"steps": count, "seed": seed, "draw_steps": self.draw_steps}
        if name == "erasediff":
            return methods.build_method(name, model, more | {"pictures": self.pictures})
        if name == "p-esd" and count < self.updates:
            more["sparsity"] = 0.01  # so few updates prune nothing of themselves
        plain: Any = methods.build_method(name, model, {})
        steps, states = self.our_steps or self.draw_steps, self.states * (self.refresh or self.updates) * self.batch
        paths = self.paths or ceil(states / (steps * len(plain.templates)))
        turns = 1 + getattr(plain, "search_turns", 0)
        more |= {"source": "student" if self.refresh else "frozen", "refresh": self.refresh * turns}
        more |= {"batch": self.batch, "paths": paths, "draw_steps": steps, "sampler": self.sampler}
        kept = {"keep_paths": self.keep_paths, "keep_source": "frozen"} if name == "eap" else {}
        return methods.build_method(name, model, more | kept)

    def measure_ours(self, name: str, target: str, count: int, seed: int = 0) -> tuple[Cost, Edit]:
        model: Any = efface.load(self.model, store_bound=0, draw_batch=self.draw_batch)
        found: list[Edit] = []
        method = self.build_method(name, model, count, seed)
        cost = measure_work(lambda: found.append(method.fit(model, Erasure((target,)))), model.unet)
        return cost, found[0]

    def measure_our_bytes(self, name: str, target: str) -> int:
        model: Any = efface.load(self.model, store_bound=0, draw_batch=self.draw_batch)
        method = self.build_method(name, model, self.short)
        return measure_peak(lambda: method.fit(model, Erasure((target,))), _list_resting(model))

    def build_request(self, name: str, target: str, count: int, edit: Edit, seed: int) -> Asked:
        """Builds the same request for the baseline, with the words that ours found."""
        model: Any = efface.load(self.model)
        method = self.build_method(name, model, count, seed)
        more: dict[str, Any] = {}
        if name == "eap":
            more["candidates"] = edit.meta["notes"]["candidates"][target]
        if name == "erasediff":
            erasure = Erasure((target,))
            more |= {
                "captions": build_remain_pictures(method, model, erasure)[1],
                "label": choose_labels(model, erasure, method.label)[0],
            }
        settings = dataclasses.asdict(method) | {"draw_steps": self.draw_steps}
        return Asked(target, method.templates, settings, count, seed, more)

    def measure_baseline(self, name: str, asked: Asked) -> tuple[Cost, dict[str, Any]]:
        """Measures the baseline; both of its models are counted, because a deep copy takes the hook along."""
        model: Any = efface.load(self.model)
        found: list[dict[str, Any]] = []
        cost = measure_work(lambda: found.append(REFERENCES[name](model, asked, **asked.more)), model.unet)
        return cost, found[0]

    def measure_plain_bytes(self, name: str, asked: Asked) -> int:
        model: Any = efface.load(self.model)
        return measure_peak(lambda: REFERENCES[name](model, asked, **asked.more), _list_resting(model))

    def judge_edit(self, name: str, target: str, seed: int, ours: Edit, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Measures the rates of both edits, by the suite and the judges that come with the model."""
        model: Any = efface.load(self.model)
        request = Erasure(expand(self.model, (target,)))
        other = Edit(plain, describe_run(model, request, f"plain {name}", {}))
        found: dict[str, Any] = {}
        for who, edit in (("ours", ours), ("plain", other)):
            where = self.out / name / f"{target}-{seed}" / who
            record = efface.evaluate(
                model, edit, where, sizes=SIZES, fraction=self.fraction, images=self.out / "images", progress=False
            )
            rates = {metric: record.find(*metric.split("/")) for metric in METRICS}
            found[f"{who}_rates"] = {metric: rate.edited.value for metric, rate in rates.items() if rate}
            found["base_rates"] = {metric: rate.base.value for metric, rate in rates.items() if rate and rate.base}
        return found


def scale_equations(cost: Cost, times: float) -> Cost:
    """A cost of so many times the work."""
    return Cost(cost.seconds * times, cost.processor * times, round(cost.rows * times), round(cost.calls * times))


def _list_resting(model: Any) -> list[Any]:
    """All weights of a model that was opened."""
    return list_weights(model.unet, model.vae, model.text_encoder)


def _format_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    titles = ("method", "target", "updates", "of the baseline", "against", "seconds", "faster")
    titles += ("faster by processor time", "rows", "fewer rows", "MB", "of its MB")
    return format_table(
        titles,
        [
            (
                row["method"],
                row["target"],
                row["updates"],
                row["baseline_updates"],
                row["against"],
                f"{row['ours']['seconds']:.1f} / {row['plain']['seconds']:.1f}",
                f"{row['faster']:.1f} x",
                f"{row['faster_processor']:.1f} x",
                f"{row['ours']['rows']} / {row['plain']['rows']}",
                f"{row['fewer_rows']:.1f} x",
                f"{row['ours_bytes'] / 1e6:.1f} / {row['plain_bytes'] / 1e6:.1f}",
                f"{row['bytes_share']:.0%}",
            )
            for row in rows
        ],
    )


def _measure_quality(rows: Sequence[Mapping[str, Any]]) -> str:
    """The paired loss of each rate, and whether its upper bound is small enough."""
    lines = []
    whose = ("ours_rates", "plain_rates", "base_rates")
    for name, metric in product(dict.fromkeys(row["method"] for row in rows), METRICS):
        mine = [row for row in rows if row["method"] == name and all(metric in row[who] for who in whose)]
        if not mine:
            continue
        losses: dict[str, list[float]] = {}
        for row in mine:
            losses.setdefault(row["target"], []).append(row["plain_rates"][metric] - row["ours_rates"][metric])
        mean, spread = fmean(cluster_means(losses)), bootstrap(losses)
        bounds = f"[{100 * spread[0]:.1f}, {100 * spread[1]:.1f}]" if spread else "one target: no interval"
        verdict = "inconclusive" if spread is None or spread[1] > ALLOWED_LOSS else "not worse"
        if spread and spread[0] > ALLOWED_LOSS:
            verdict = "worse"
        shown = (f"{100 * fmean(row[who][metric] for row in mine):.1f}" for who in whose)
        lines.append((name, metric, len(losses), *shown, f"{100 * mean:.1f} {bounds}", verdict))
    titles = ("method", "rate", "targets", "ours", "plain", "base", "loss in points, plain - ours", "verdict")
    return format_table(titles, lines)


if __name__ == "__main__":
    tyro.cli(Updates).run()
