"""What `recipes.robustness` and `recipes.tune` share: one method on one concept, erased and evaluated, or read back."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from efface import methods
from efface.api.resources import suite_for
from efface.concept import Erasure
from efface.evaluation.evaluate import evaluate
from efface.models.base import Model
from efface.records.report import Record, read_report
from efface.scorers import build_scorers
from efface.suites import world
from efface.suites.rows import build
from efface.suites.spec import Suite
from efface.suites.world import locate


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
