"""Does one job: erases, then evaluates and attacks at each strength. Finished cells are skipped."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog import METHODS, find_table_entry
from ..files import hash_file
from ..files.structured import parse_json
from .cells import Cell, Store, to_plain
from .diagnoses import DIAGNOSES, list_diagnoses
from .grid import Grid
from .jobs import Job, list_attacks
from .protocol import choose_drawing, choose_scorers
from .summaries import NOT_MADE, summarise, summarise_attack

if TYPE_CHECKING:
    from ..models.base import Model


@functools.lru_cache(maxsize=1)
def open_model(name: str, device: str | None) -> Model:
    """Opens a model; a worker keeps the last one that it opened."""
    from ..api.erasing import load

    return load(name, device)


@functools.lru_cache(maxsize=1)
def _identify_base(model: Model) -> Mapping[str, Any]:
    """Identifies the base's weights and scheduler; computed once for an open model, because it reads all weights."""
    from ..models.schedule import list_settings

    own = model.build_scheduler("own")
    scheduler = {"class": type(own).__name__, "settings": list_settings(own)}
    return {"fingerprint": model.fingerprint(), "decoder": model.hash_decoder(), "scheduler": scheduler}


@functools.lru_cache(maxsize=1)
def _identify_world(model: str) -> str:
    """Identifies the things and styles that come with a model; "" where none do."""
    from ..api.resources import find_bundle

    bundle = find_bundle(model)
    return hash_file(bundle / "world.json") if bundle else ""


@dataclass(frozen=True)
class JobCells:
    """A job's cells, in the order in which they are done."""

    erase: Cell
    measured: tuple[tuple[float, Cell, tuple[tuple[str, Cell], ...]], ...]
    """For each strength: its evaluation, and its attacks by name."""
    diagnosed: tuple[Cell, ...] = ()
    """The audit of the whole edit, and its neurons, where the grid asks for them."""

    def __iter__(self) -> Iterator[Cell]:
        yield self.erase
        for _, evaluation, attacks in self.measured:
            yield evaluation
            yield from (cell for _, cell in attacks)
        yield from self.diagnosed

    def reduce_to_names(self) -> JobCells:
        """The same cells by their names alone, to save memory."""
        measured = [
            (strength, evaluation.reduce_to_name(), tuple((name, cell.reduce_to_name()) for name, cell in attacks))
            for strength, evaluation, attacks in self.measured
        ]
        return JobCells(
            self.erase.reduce_to_name(), tuple(measured), tuple(cell.reduce_to_name() for cell in self.diagnosed)
        )


def list_cells(grid: Grid, job: Job, model: Model) -> JobCells:
    """The cells of a job on an open model, which has the base's fingerprint and its own settings of the method.

    Raises:
        ValueError: the method, its settings or the request can't work.
        OSError: a suite's file is missing.
    """
    from ..methods.configure import build_method
    from .outside import hash_suite, list_method_code

    method = build_method(job.method, model, dict(job.settings))
    base = {"base": _identify_base(model), "world": _identify_world(job.model)}
    asked = {"targets": job.targets, "anchor": job.anchor, "keep": job.keep}
    how = {"method": job.method, "arguments": dataclasses.asdict(method), **list_method_code(method)}
    erase = Cell("erase", to_plain({**base, **how, **asked}))
    named, asked = grid.name_suite(job.concept), grid.name_asked(job.concept)
    suite = {"suite": named, "file": hash_suite(named)}
    own = {"steps": model.defaults.steps, "guidance": model.defaults.guidance}
    drawn = {"drawing": grid.drawing.model_dump(), "own": own, "protocol": grid.protocol}
    how = {"edit": erase.id, "scorers": _identify(grid, job.model), **drawn}
    asked = {**suite, "sizes": grid.sizes, "fraction": grid.fraction, "asks": asked}
    measured = []
    for strength in job.strengths:
        evaluation = Cell("evaluate", to_plain({**how, **asked, "strength": strength}))
        attacks = tuple(
            (name, Cell("attack", to_plain({**evaluation.decided_by, **spent})))
            for name, spent in _list_attacks(grid, job, strength).items()
        )
        measured.append((strength, evaluation, attacks))
    return JobCells(erase, tuple(measured), tuple(list_diagnoses(grid, job, how, {**suite, "asks": asked["asks"]})))


def do_job(grid: Grid, job: Job, store: Store, device: str | None = None) -> list[str]:
    """Does the cells of a job that are not done.

    Returns:
        The kinds of the cells that were done now.
    """
    model = open_model(job.model, device)
    cells = list_cells(grid, job, model)
    done = []
    for cell, work in _list_work(grid, job, store, model, cells):
        if store.is_done(cell) and (cell is not cells.erase or _can_go_on(store, cells)):
            continue
        attempts, began, busy = store.begin(cell), time.monotonic(), time.process_time()
        result = work()
        cost = {"seconds": time.monotonic() - began, "processor": time.process_time() - busy, "attempts": attempts}
        store.finish(cell, result, {name: round(value, 3) for name, value in cost.items()})
        done.append(cell.kind)
    return done


def _can_go_on(store: Store, cells: JobCells) -> bool:
    """Whether the edit of a finished erasure is there, or is not needed; results alone may have been copied."""
    return store.locate_edit(cells.erase.id).is_file() or all(store.is_done(cell) for cell in cells)


def _list_work(grid: Grid, job: Job, store: Store, model: Model, cells: JobCells) -> Iterator[tuple[Cell, Any]]:
    edit = store.locate_edit(cells.erase.id)
    yield cells.erase, functools.partial(_erase, job, model, edit)
    for strength, evaluation, attacks in cells.measured:
        folder = store.locate_evaluation(evaluation.id)
        yield evaluation, functools.partial(_evaluate, grid, job, model, edit, folder, store.images, strength)
        for name, attack in attacks:
            yield attack, functools.partial(_attack, grid, job, model, edit, folder, store.attacks, name, strength)
    for cell in cells.diagnosed:
        place = store.locate_diagnosis(cell.kind, cell.id)
        yield cell, functools.partial(DIAGNOSES[cell.kind], grid, job, model, edit, place)


def _erase(job: Job, model: Model, file: Path) -> Mapping[str, Any]:
    from ..api.erasing import erase

    checkpoint = file.with_suffix(".checkpoint")
    trained = {"checkpoint": checkpoint} if _is_trained(job.method) else {}
    if not file.is_file():  # it is there where the run was killed just after it, or the cell's result was removed
        erase(model, job.request, job.method, progress=False, **trained, **job.settings).save(file)
    return {"edit": hash_file(file)}


def _evaluate(
    grid: Grid, job: Job, model: Model, edit: Path, out: Path, images: Path, strength: float
) -> Mapping[str, Any]:
    from ..api.evaluating import evaluate

    record = evaluate(
        model, edit, out, grid.name_suite(job.concept), asks=grid.name_asked(job.concept), scorers=grid.scorers,
        protocol=grid.protocol, sizes=grid.sizes, fraction=grid.fraction, images=images, strength=strength,
        progress=False, **grid.drawing.model_dump(),
    )  # fmt: skip
    return summarise(record, out)


def _attack(
    grid: Grid, job: Job, model: Model, edit: Path, out: Path, shared: Path, name: str, strength: float
) -> Mapping[str, Any]:
    from ..api.attacking import attack
    from ..attacks import BASELINE
    from ..robustness.conditions import CannotAttack

    how, own = grid.attacking, find_table_entry(name, grid.attacking.settings)
    try:
        record = attack(
            model, edit, out, grid.name_suite(job.concept), asks=grid.name_asked(job.concept), attacks=name,
            budget=how.budget, rows=how.rows, controls=how.controls, settings={name: own} if own else None,
            scorers=choose_scorers(grid, job.model), store=shared, strength=strength, progress=False,
            **choose_drawing(grid, job.model),
        )  # fmt: skip
    except CannotAttack as error:
        return {**NOT_MADE, "refused": str(error)}
    return summarise_attack(record, name, BASELINE)


def _list_attacks(grid: Grid, job: Job, strength: float) -> dict[str, Mapping[str, Any]]:
    """The attacks at a strength by name, each with what decides it beside the edit and the suite."""
    from ..attacks import find_name

    size = {"rows": grid.attacking.rows, "controls": grid.attacking.controls}
    names = map(find_name, list_attacks(job.list_attacks(strength)))
    own = grid.attacking.settings
    return {
        name: size | _describe_attack(name, job.model, grid.attacking.budget, json.dumps(find_table_entry(name, own)))
        for name in names
    }


@functools.cache
def _describe_attack(name: str, model: str, budget: str, settings: str) -> dict[str, Any]:
    """The settings of an attack, the model's own included, and of the random prefixes that are its baseline."""
    from ..attacks import BASELINE, build_attack
    from .outside import list_attack_code

    made, baseline = (
        build_attack(name, model, budget, parse_json(settings, finite=False)),
        build_attack(BASELINE, model),
    )
    return {
        "attack": name,
        "queries": made.queries,
        "settings": dataclasses.asdict(made),
        "baseline": dataclasses.asdict(baseline),
        **list_attack_code(name),
    }


@functools.cache
def _list_identities(model: str, scorers: tuple[str, ...]) -> dict[str, Any]:
    from ..api.resources import build_judges, find_world
    from ..origin import identify

    return {s.name: identify(s) for s in build_judges(model, None, scorers, find_world(model))}


def _identify(grid: Grid, model: str) -> Mapping[str, Any]:
    """What the scorers' answers depend on; just their names where they need the suite's labels to be built."""
    from .outside import list_scorer_code

    try:
        return _list_identities(model, grid.scorers)
    except ValueError:
        return {"named": list(grid.scorers), **list_scorer_code(grid.scorers)}


def _is_trained(method: str) -> bool:
    return METHODS.get(method).kind == "trained"
