"""Run a recipe, every method on every concept, into one page: `python -m recipes.run RECIPE.toml`.

Finished concepts are read back, an interrupted one goes on; the base is drawn once for all.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import efface
from efface import methods
from efface.api.resources import suite_for
from efface.concept import Erasure
from efface.evaluation.estimates import estimate
from efface.evaluation.evaluate import evaluate, find_image_store
from efface.evaluation.images import VARIANTS
from efface.evaluation.rows_table import read_rows
from efface.files import write_whole
from efface.functional.rates import bootstrap
from efface.models.base import Model
from efface.records.report import Estimate, Record, read_report
from efface.scorers import build_scorers
from efface.suites import world
from efface.suites.rows import build
from efface.suites.spec import Suite
from efface.suites.world import locate


@dataclass(frozen=True)
class Trial:
    """One method on one concept."""

    split: str
    target: str
    method: str
    record: Record
    fitted: Mapping[str, Any]
    distance: Estimate
    """Mean absolute difference, as a share of the range, of kept prompts' pictures from the base's of the same seed."""

    def rate(self, metric: str, variant: str) -> Estimate | None:
        """A rate by the rule of all judges: esr1 on the target, psr1 on neighbours or on what fitting never saw."""
        if metric == "distance":
            return self.distance if variant == "edited" else None
        name, _, group = metric.partition("/")
        found = self.record.find(name, group)
        return getattr(found, variant) if found else None


def suite_of(erasure: Erasure, known: world.World, sizes: Mapping[str, int], salt: str = "") -> Suite:
    """The suite for an erasure with so many pictures in each group; groups that it lacks stay out."""
    name = suite_for(erasure, known)
    probe = build(name, erasure, known, per_group=1)
    sizes = {g: n for g, n in sizes.items() if probe.group(g)}
    return build(name, erasure, known, sizes=sizes, only=list(sizes), salt=salt)


def attempt(
    model: Model,
    recipe: Mapping,
    target: str,
    method: str,
    known: world.World,
    settings: Mapping[str, Any] | None = None,
    where: Path | None = None,
) -> tuple[Path, Record, Mapping[str, Any]]:
    """Erase and evaluate, or read back what was done before: the folder, its record, and what the fitting took.

    A target may be several at once: "cat + rocket".
    """
    settings = dict(settings or {})
    kind = methods.get(method)
    anchor = recipe.get("anchors", {}).get(target, "") if kind.uses_anchor else ""
    if kind.needs_anchor and not anchor:
        raise ValueError(f"{method} needs an anchor for {target}: add one under [anchors]")
    erasure = Erasure(known.expand(tuple(target.split(" + "))), anchor)
    where = where or Path(recipe["out"]) / method / target
    where.mkdir(parents=True, exist_ok=True)
    if not (where / "fitted.json").exists():
        request = json.dumps({"targets": erasure.targets, "anchor": anchor})
        fit = [sys.executable, "-m", "recipes.fit", recipe["model"], method, request, str(where)]
        subprocess.run([*fit, str(torch.get_num_threads()), json.dumps(settings)], check=True)
    if not (where / "report.json").exists():
        judges = build_scorers(locate(recipe["model"]), known.backgrounds, judges_of(recipe))
        suite = suite_of(erasure, known, recipe["sizes"])
        evaluate(model, where / "edit.safetensors", suite, judges, where, image_store=Path(recipe["out"]) / "images")
    record = current(read_report(where), model, method, settings, where)
    return where, record, json.loads((where / "fitted.json").read_text())


def judges_of(recipe: Mapping) -> list[str]:
    """The judges and the CLIP that come with the model: what the pages speak of."""
    folder = locate(recipe["model"]) / "judges"
    return [*sorted(f.name for f in folder.iterdir()), "clip"]


def drift(where: Path) -> Estimate:
    """How far the pictures of kept prompts moved from the base's of the same seed."""
    table = read_rows(where, ["id", "role", "variant", "picture"])
    files: dict[str, dict[str, str]] = {}
    for row in table:
        if row["role"] == "keep":
            files.setdefault(row["id"], {})[row["variant"]] = row["picture"]
    image_store = find_image_store(where)
    pairs = [
        [np.asarray(Image.open(image_store / found[variant]), dtype=np.float64) for variant in ("base", "edited")]
        for found in files.values()
    ]
    return estimate([float(np.abs(a - b).mean()) / 255 for a, b in pairs])


def current(record: Record, model: Model, method: str, settings: Mapping[str, Any], where: Path) -> Record:
    """The record, after proof that it is of this model and these arguments.

    Raises:
        ValueError: it was made with others; names the folder to remove.
    """
    chosen, defaults = methods.configured(method, model, dict(settings)), methods.get(method)()
    arguments, initial = (json.loads(json.dumps(dataclasses.asdict(m))) for m in (chosen, defaults))
    now = {"fingerprint": model.fingerprint(), "decoder": model.decoder_digest(), "arguments": arguments}
    # A setting that came later stood at what is its default now.
    known = initial | record.arguments
    then = {"fingerprint": record.drawing.fingerprint, "decoder": record.drawing.decoder, "arguments": known}
    if differ := [key for key in now if now[key] != then[key]]:
        raise ValueError(f"{where} was made with another {', '.join(differ)}; remove it to make it again")
    return record


SHARES = ("esr1", "psr1")
METRICS = {
    "esr1/target": "ESR-1, target",
    "psr1/neighbour": "PSR-1, neighbours",
    "psr1/style": "PSR-1, other styles",
    "psr1/unseen": "PSR-1, never seen in fitting",
    "clip/unseen": "CLIP, never seen in fitting",
    "distance": "distance to the base, kept prompts",
}


def whole(number: float | None) -> str:
    return "–" if number is None else f"{number:.0f}"


def scale(metric: str) -> float:
    """Rates are shown in percent, other means as they are."""
    return 100.0 if metric.startswith(SHARES) else 1.0


def shown(found: Estimate | None, metric: str) -> str:
    if found is None or found.value is None:
        return "–"
    k, digits = scale(metric), 1 if metric.startswith(SHARES) else 3
    return f"{k * found.value:.{digits}f} [{k * found.low:.{digits}f}, {k * found.high:.{digits}f}] n={found.n}"


def rows(trials: Sequence[Trial]) -> list[str]:
    """One line a trial, the base beside every number."""
    head = ["split", "concept", "method", "seconds", "peak MB"] + [f"{title} (base)" for title in METRICS.values()]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for t in trials:
        cells = [f"{shown(t.rate(m, 'edited'), m)} ({shown(t.rate(m, 'base'), m).split(' ')[0]})" for m in METRICS]
        cost = [f"{t.fitted['seconds']:.0f}", whole(t.fitted["peak_mb"])]
        lines.append("| " + " | ".join([t.split, t.target, t.method, *cost, *cells]) + " |")
    return lines


def means(trials: Sequence[Trial], reported: Mapping) -> list[str]:
    """Means over concepts with intervals that resample concepts, beside what papers report of concepts of that kind."""
    head = ["split", "method", "concepts", *METRICS.values(), "loss of PSR-1, never seen", "reported (other model)"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for split, method in dict.fromkeys((t.split, t.method) for t in trials):
        mine = [t for t in trials if (t.split, t.method) == (split, method)]
        both = [[mean({t.target: value(t.rate(m, variant)) for t in mine}, m) for variant in VARIANTS] for m in METRICS]
        cells = [f"{edited} ({base.split(' ')[0]})" for base, edited in both]
        loss = {t.target: difference(t.rate("psr1/unseen", "base"), t.rate("psr1/unseen", "edited")) for t in mine}
        theirs = reported.get(method, {}) if split in reported.get("splits", [split]) else {}
        paper = ", ".join(f"{k.upper()} {100 * v:.1f}" for k, v in theirs.items()) or "–"
        lines.append("| " + " | ".join([split, method, str(len(mine)), *cells, mean(loss, "psr1"), paper]) + " |")
    return lines


def value(estimate: Estimate | None) -> float | None:
    return estimate.value if estimate else None


def difference(a: Estimate | None, b: Estimate | None) -> float | None:
    return None if a is None or b is None or a.value is None or b.value is None else a.value - b.value


def mean(by_concept: Mapping[str, float | None], metric: str) -> str:
    judged = [v for v in by_concept.values() if v is not None]
    if not judged:
        return "–"
    interval, k = bootstrap({name: [v] for name, v in by_concept.items()}), scale(metric)
    digits = 1 if k > 1 else 3
    spread = f" [{k * interval[0]:.{digits}f}, {k * interval[1]:.{digits}f}]" if interval else ""
    return f"{k * sum(judged) / len(judged):.{digits}f}{spread}"


def left(recipe: Mapping, trials: Sequence[Trial]) -> list[str]:
    """What the recipe names and nobody has run yet."""
    done = {(t.target, t.method) for t in trials}
    concepts = [concept for some in recipe["concepts"].values() for concept in some]
    waiting = {c: [m for m in recipe["methods"] if (c, m) not in done] for c in concepts}
    said = [f"{c}: {'all' if m == recipe['methods'] else ', '.join(m)}" for c, m in waiting.items() if m]
    return [f"Not run yet: {'; '.join(said)}.", ""] if said else []


def page(recipe: Mapping, path: Path, trials: Sequence[Trial]) -> str:
    record, fitted = trials[0].record, trials[0].fitted
    memory = "Peak memory is that of the resident process; – where it was not measured."
    drawing, packages = record.drawing, ", ".join(f"{k} {v}" for k, v in record.packages.items())
    return "\n".join(
        [
            f"# {recipe['title']}",
            "",
            f"Made by `python -m recipes.run {path}`. Rates in percent with 95 % intervals, the untouched base in",
            "brackets: Wilson's for one concept, a bootstrap over concepts for means. The embedded model shows",
            "mechanisms, not Stable Diffusion's numbers.",
            record.rule,
            f"Drawn with {drawing.scheduler}, {drawing.steps} steps, guidance {drawing.guidance}, {drawing.compute}.",
            f"Training seed 0; each erasure in a process of its own on {fitted['threads']:.0f} thread(s). {memory}",
            f"{packages}.",
            "",
            recipe["tuning"].strip(),
            "",
            *([recipe["findings"].strip(), ""] if "findings" in recipe else []),
            *left(recipe, trials),
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
    parser.add_argument("--done", action="store_true", help="start nothing: write the page of what is finished")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = tomllib.loads(args.recipe.read_text())
    model, known = efface.load(recipe["model"]), world.load(locate(recipe["model"]))
    trials = []
    for split, concepts in recipe["concepts"].items():
        for target in concepts:
            for method in recipe["methods"]:
                if args.done and not (Path(recipe["out"]) / method / target / "report.json").exists():
                    continue
                where, record, fitted = attempt(model, recipe, target, method, known)
                trials.append(Trial(split, target, method, record, fitted, drift(where)))
                print(rows(trials[-1:])[-1], flush=True)
                write_whole(Path(recipe["page"]), page(recipe, args.recipe, trials))


if __name__ == "__main__":
    main()
