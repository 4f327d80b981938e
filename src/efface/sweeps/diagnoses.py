"""The diagnoses of a job's whole edit: its audit, its neurons, and purification."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog import METHODS
from .cells import Cell, Kind, to_plain
from .checking import build_measuring
from .grid import Grid
from .jobs import Job
from .protocol import choose_drawing, choose_scorers
from .summaries import summarise_audit, summarise_neurons, summarise_purified

if TYPE_CHECKING:
    from ..models.base import Model


def list_diagnoses(grid: Grid, job: Job, how: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[Cell]:
    """The cells of an edit with a strength other than 0: its audit, its neurons if it changes weights, purification.

    Args:
        how: what decides the results of all of them.
        asked: the suite, which decides what is purified.
    """
    if not any(job.strengths):
        return
    if grid.audit:
        yield Cell("audit", to_plain({**how, **grid.audit.model_dump()}))
    if grid.neurons and job.concept in grid.neurons.adversarial and METHODS.get(job.method).kind != "inference time":
        prompts = {"targets": job.targets, "adversarial": grid.neurons.adversarial[job.concept]}
        unjudged = {key: value for key, value in how.items() if key != "scorers"}
        yield Cell("neurons", to_plain({**unjudged, **prompts, **grid.neurons.model_dump(exclude={"adversarial"})}))
    if grid.purify:
        yield Cell("purify", to_plain({**how, **asked, **grid.purify.model_dump()}))


def _audit(grid: Grid, job: Job, model: Model, edit: Path, out: Path) -> Mapping[str, Any]:
    """An audit, with how far the edit moves the model's predictions under the empty prompt and under the target's."""
    from ..api.auditing import audit
    from ..diagnostics.audit import AuditConfig, search_damage
    from ..edits.edit import Edit

    assert grid.audit
    drawing = {k: v for k, v in choose_drawing(grid, job.model).items() if v is not None}
    how = grid.audit.model_dump(exclude={"vocabulary"}) | drawing | {"scorers": choose_scorers(grid, job.model)}
    record = audit(model, edit, out, vocabulary=grid.audit.vocabulary, progress=False, **how)
    prompts = {"unconditional": "", "target": f"a picture of a {job.targets[0]}"}
    if model.architecture == "ddpm":
        prompts = {"target": job.targets[0]}
    moved = search_damage(model, Edit.load(edit), list(prompts.values()), AuditConfig(template="{}", space="eps"))
    return summarise_audit(record, dict(zip(prompts, moved, strict=True)))


def _measure_neurons(grid: Grid, job: Job, model: Model, edit: Path, out: Path) -> Mapping[str, Any]:
    from ..api.diagnosing import neurons

    assert grid.neurons
    concept = grid.neurons.template.format(" and ".join(job.targets))
    settings = {"seeds": grid.neurons.seeds, "top": grid.neurons.top, **choose_drawing(grid, job.model)}
    prompts = grid.neurons.adversarial[job.concept]
    found, _ = neurons(model, edit, concept, prompts, out, progress=False, **settings)
    return summarise_neurons(found, str(edit))


def _purify(grid: Grid, job: Job, model: Model, edit: Path, out: Path) -> Mapping[str, Any]:
    """Purification of the pictures of each group, with a sheet of those before, without and with the edit."""
    import torch

    from ..diagnostics.purification import PurifyConfig, measure_purification
    from ..edits.edit import Edit
    from ..evaluation.images import encode_png
    from ..files import write_whole

    assert grid.purify
    suite, judges = build_measuring(grid, job, model, grid.purify.sizes)
    given, drawing = Edit.load(edit), choose_drawing(grid, job.model)
    how = PurifyConfig(**grid.purify.model_dump(exclude={"sizes"}))
    numbers: dict[str, Any] = {}
    for group in suite.spec.groups:
        if not (rows := suite.select_group(group.name)):
            continue
        found = measure_purification(model, given, rows, judges, how, drawing)
        numbers |= summarise_purified(found, group)
        if len(found.pictures["before"]):
            sheet = torch.cat([torch.cat(list(kind), dim=2) for kind in found.pictures.values()], dim=1)
            write_whole(out / f"{group.name}.png", encode_png(sheet))
    return {"numbers": numbers}


DIAGNOSES: Mapping[Kind, Callable[[Grid, Job, Model, Path, Path], Mapping[str, Any]]] = {
    "audit": _audit,
    "neurons": _measure_neurons,
    "purify": _purify,
}
