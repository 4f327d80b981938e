"""Run a recipe, every method on every concept, into one page: `python -m recipes.run RECIPE.toml`.

Finished concepts are read back, an interrupted one goes on; the base is drawn once for all.
"""

import argparse
import dataclasses
import json
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import efface
from efface import methods
from efface.cli.glyphs import suite_for
from efface.concept import Erasure
from efface.evaluate import Estimate, Record, evaluate, read, write_whole
from efface.functional.rates import bootstrap
from efface.models.base import Model
from efface.scorers import panel
from efface.suites import Suite, build, locate, world


@dataclass(frozen=True)
class Trial:
    """One method on one concept."""

    split: str
    target: str
    method: str
    record: Record
    seconds: float

    def rate(self, metric: str, who: str) -> Estimate | None:
        """A rate by the rule of all judges: esr1 on the target, psr1 on neighbours or on what fitting never saw."""
        name, _, group = metric.partition("/")
        found = [m for m in self.record.measures if (m.metric, m.group, m.judge) == (name, group, "all")]
        return getattr(found[0], who) if found else None


def suite_of(recipe: Mapping, erasure: Erasure, known: world.World) -> Suite:
    """The suite for an erasure, with the recipe's numbers of pictures."""
    name = suite_for(erasure, known)
    probe = build(name, erasure, known, per_group=1)
    sizes = {g: n for g, n in recipe["sizes"].items() if probe.group(g)}
    if "target" in sizes:
        sizes["target"] = -(-sizes["target"] // len(erasure.targets))
    return build(name, erasure, known, sizes=sizes, only=list(sizes))


def attempt(model: Model, recipe: Mapping, split: str, target: str, method: str, known: world.World) -> Trial:
    """Erase and evaluate, or read back what was done before."""
    erasure = Erasure(known.expand((target,)))
    where = Path(recipe["out"]) / method / target
    where.mkdir(parents=True, exist_ok=True)
    edit, clock = where / "edit.safetensors", where / "seconds"
    if not clock.exists():
        start = time.perf_counter()
        efface.erase(model, erasure, method=method).save(edit)
        write_whole(clock, f"{time.perf_counter() - start:.1f}")
    if not (where / "report.json").exists():
        judges = [s for s in panel(locate(recipe["model"]), known.backgrounds) if s.asks in ("object", "style")]
        suite = suite_of(recipe, erasure, known)
        evaluate(model, edit, suite, judges, where, album=Path(recipe["out"]) / "images")
    return Trial(split, target, method, current(read(where), model, method, where), float(clock.read_text()))


def current(record: Record, model: Model, method: str, where: Path) -> Record:
    """The record, after proof that it is of this model and these arguments.

    Raises:
        ValueError: it was made with others; names the folder to remove.
    """
    arguments = json.loads(json.dumps(dataclasses.asdict(methods.configured(method, model, {}))))
    now = {"fingerprint": model.fingerprint(), "decoder": model.decoder_digest(), "arguments": arguments}
    then = {"fingerprint": record.drawing.fingerprint, "decoder": record.drawing.decoder, "arguments": record.arguments}
    if differ := [key for key in now if now[key] != then[key]]:
        raise ValueError(f"{where} was made with another {', '.join(differ)}; remove it to make it again")
    return record


METRICS = {
    "esr1/target": "ESR-1, target",
    "psr1/neighbour": "PSR-1, neighbours",
    "psr1/style": "PSR-1, other styles",
    "psr1/unseen": "PSR-1, never seen in fitting",
}


def shown(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return "–"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}] n={estimate.n}"


def rows(trials: Sequence[Trial]) -> list[str]:
    """One line a trial, the base beside every number."""
    head = ["split", "concept", "method", "seconds"] + [f"{title} (base)" for title in METRICS.values()]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for t in trials:
        cells = [f"{shown(t.rate(m, 'edited'))} ({shown(t.rate(m, 'base')).split(' ')[0]})" for m in METRICS]
        lines.append("| " + " | ".join([t.split, t.target, t.method, f"{t.seconds:.0f}", *cells]) + " |")
    return lines


def means(trials: Sequence[Trial], reported: Mapping) -> list[str]:
    """Means over concepts with intervals that resample concepts, beside what the paper reports."""
    head = ["split", "method", "concepts", *METRICS.values(), "loss of PSR-1, never seen", "reported (other model)"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for split, method in dict.fromkeys((t.split, t.method) for t in trials):
        mine = [t for t in trials if (t.split, t.method) == (split, method)]
        cells = [mean({t.target: value(t.rate(m, "edited")) for t in mine}) for m in METRICS]
        loss = {t.target: difference(t.rate("psr1/unseen", "base"), t.rate("psr1/unseen", "edited")) for t in mine}
        paper = ", ".join(f"{k.upper()} {100 * v:.1f}" for k, v in reported.get(method, {}).items()) or "–"
        lines.append("| " + " | ".join([split, method, str(len(mine)), *cells, mean(loss), paper]) + " |")
    return lines


def value(estimate: Estimate | None) -> float | None:
    return estimate.value if estimate else None


def difference(a: Estimate | None, b: Estimate | None) -> float | None:
    return None if a is None or b is None or a.value is None or b.value is None else a.value - b.value


def mean(by_concept: Mapping[str, float | None]) -> str:
    judged = [v for v in by_concept.values() if v is not None]
    if not judged:
        return "–"
    interval = bootstrap({k: [v] for k, v in by_concept.items()})
    spread = f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""
    return f"{100 * sum(judged) / len(judged):.1f}{spread}"


def page(recipe: Mapping, path: Path, trials: Sequence[Trial]) -> str:
    drawing = trials[0].record.drawing
    return "\n".join(
        [
            f"# {recipe['title']}",
            "",
            f"Made by `python -m recipes.run {path}`. Rates in percent with 95 % intervals: Wilson for one concept, a",
            "bootstrap over concepts for means. The embedded model shows mechanisms,",
            "not Stable Diffusion's numbers.",
            f"{trials[0].record.rule}",
            f"Drawn with {drawing.scheduler}, {drawing.steps} steps, guidance {drawing.guidance}, {drawing.compute};"
            f" training seed 0; packages {', '.join(f'{k} {v}' for k, v in trials[0].record.packages.items())}.",
            "",
            recipe["tuning"].strip(),
            "",
            "## Means over concepts",
            "",
            *means(trials, recipe.get("reported", {})),
            "",
            "## Every concept",
            "",
            *rows(trials),
            "",
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = tomllib.loads(args.recipe.read_text())
    model, known = efface.load(recipe["model"]), world.load(locate(recipe["model"]))
    trials = []
    for split, concepts in recipe["concepts"].items():
        for target in concepts:
            for method in recipe["methods"]:
                trials.append(attempt(model, recipe, split, target, method, known))
                print(rows(trials[-1:])[-1], flush=True)
                write_whole(Path(recipe["page"]), page(recipe, args.recipe, trials))


if __name__ == "__main__":
    main()
