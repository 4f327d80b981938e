"""What the names of cells and locks of a sweep depend on."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import pytest
from filelock import FileLock

from efface.robustness.conditions import CannotAttack
from efface.source import PACKAGE
from efface.sweeps import cells, work
from efface.sweeps.cells import IDLE, ROOMS, Cell, Kind, Store, digest_code
from efface.sweeps.grid import Drawing, Grid
from efface.sweeps.jobs import expand
from efface.sweeps.sweeping import plan
from efface.sweeps.work import do_job
from efface.sweeps.worker import read_job, run


def test_a_cell_is_named_by_all_that_decides_it() -> None:
    cell = Cell("evaluate", {"edit": "a", "strength": 1.0})
    assert cell.id == Cell("evaluate", {"strength": 1.0, "edit": "a"}).id
    assert len({cell.id, Cell("attack", cell.decided_by).id, Cell("evaluate", {"edit": "a", "strength": 0.5}).id}) == 3
    assert digest_code("erase") != digest_code("attack")


def list_names(grid: Grid) -> dict[str, str]:
    """The name of each cell of a grid with one job, by kind."""
    ((_, cells),) = plan(grid, None)
    return {cell.kind: cell.id for cell in cells}


def test_every_cell_is_named_by_how_pictures_are_drawn_and_by_the_models_own_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grid = Grid(
        models=("glyphs-ddpm",), methods=("neggrad",), concepts={"all": ("cat",)}, attacks=("seeds",),
        audit={"controls": 1}, neurons={"adversarial": {"cat": ("a kitty",)}},  # type: ignore[arg-type]
        purify={},  # type: ignore[arg-type]
    )  # fmt: skip
    names = list_names(grid)
    assert set(names) == {"erase", "evaluate", "attack", "audit", "neurons", "purify"}
    slower = list_names(grid.model_copy(update={"drawing": Drawing(steps=3)}))
    assert {kind for kind in names if names[kind] != slower[kind]} == set(names) - {"erase"}
    declared = list_names(grid.model_copy(update={"protocol": "ddpm-class"}))
    assert {kind for kind in names if names[kind] != declared[kind]} == set(names) - {"erase"}
    monkeypatch.setattr(work, "_identify_world", lambda model: "another world.json")
    assert not set(names.values()) & set(list_names(grid).values())
    monkeypatch.undo()
    monkeypatch.setattr("efface.models.schedule.list_settings", lambda scheduler: {"timestep_spacing": "leading"})
    work._identify_base.cache_clear()
    assert not set(names.values()) & set(list_names(grid).values())
    monkeypatch.undo()
    work._identify_base.cache_clear()
    suggested = {"queries": 3}
    monkeypatch.setattr("efface.attacks.configure.suggest_settings", lambda name, model: suggested)
    work._describe_attack.cache_clear()
    other = list_names(grid)
    work._describe_attack.cache_clear()
    assert {kind for kind in names if names[kind] != other[kind]} == {"attack"}


def test_the_names_of_cells_depend_on_the_tables_of_suites_and_protocols(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {kind: digest_code(kind) for kind in ROOMS}
    real = cells.read_toml

    def read(file: Path) -> dict:
        return real(file) | ({"templates": ["another prompt"]} if file.stem == "imagenette" else {})

    monkeypatch.setattr(cells, "read_toml", read)
    assert {kind for kind in ROOMS if before[kind] != digest_code.__wrapped__(kind)} == set(ROOMS) - {"erase"}


@pytest.mark.parametrize("kind", ROOMS)
def test_what_the_parts_of_a_cell_import_is_among_them_or_changes_no_result(kind: Kind) -> None:
    rooms = {Path(room).with_suffix("").parts[0] for room in ROOMS[kind]}
    files = [file for room in ROOMS[kind] for file in cells._list_sources(PACKAGE / room) if file.suffix == ".py"]
    known = {place.stem for place in PACKAGE.iterdir()}
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        typing = [part for node in ast.walk(tree) if isinstance(node, ast.If) for part in node.body]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level and node not in typing:
                folders = file.relative_to(PACKAGE).parts
                inside = [*folders[: len(folders) - node.level], *(node.module or "").split(".")]
                names = inside if inside != [""] else [alias.name for alias in node.names]
                if (top := next(name for name in names if name)) in known:
                    assert top in rooms | set(IDLE), f"{file} imports {top}, which {kind} cells are not named by"


def test_jobs_with_one_edit_share_a_lock() -> None:
    grid = Grid(
        models=("m",), methods=("uce", "esd"), concepts={"a": ("cat",), "b": ("cat",)},
        variants=({"name": "untouched", "method": "uce", "strengths": (0.0,)},),  # type: ignore[arg-type]
    )  # fmt: skip
    jobs = expand(grid)
    assert len({job.compute_key() for job in jobs}) == len(jobs) == 6
    read = [read_job(json.dumps(dataclasses.asdict(job))) for job in jobs]
    assert [job.compute_key() for job in read] == [job.compute_key() for job in jobs]


def test_a_job_waits_for_another_process_on_its_edit_however_its_settings_are_written(tmp_path: Path) -> None:
    own = {"name": "written out", "method": "negative", "settings": {"template": "{}"}}
    concepts = {"a": ("cat",), "b": ("cat",)}
    grid = Grid(models=("glyphs-ddpm",), methods=("negative",), concepts=concepts, variants=(own,))  # type: ignore[arg-type]
    store = Store(tmp_path)
    planned = plan(grid, None)
    (edit,) = {cells.erase.id for _, cells in planned}
    lock = store.locate_lock(edit)
    lock.parent.mkdir()
    with FileLock(lock):
        assert [run(grid, job, store, None) for job, _ in planned] == [{"busy": True}] * 4


def test_a_result_without_a_number_is_refused_before_it_is_written(tmp_path: Path) -> None:
    store, cell = Store(tmp_path), Cell("audit", {"edit": "e"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.finish(cell, {"numbers": {"drift/target": {"value": float("nan")}}}, {"seconds": 1.0})
    assert not store.is_done(cell), "else no table of the sweep could be written"


def test_a_job_whose_process_dies_does_not_keep_the_log_of_an_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise SystemExit  # no Exception, as where the process is killed

    grid = Grid(models=("glyphs-ddpm",), methods=("negative",), concepts={"all": ("cat",)})
    (job,), store = expand(grid), Store(tmp_path)
    store.write_log(job.compute_key(), job.name, "ValueError: of yesterday")
    monkeypatch.setattr("efface.sweeps.work.do_job", die)
    with pytest.raises(SystemExit):
        run(grid, job, store, None)
    assert store.read_error(job.compute_key()) == ""


def test_both_spellings_of_a_method_are_one_method() -> None:
    shared = {"concepts": {"all": ("cat",)}, "models": ("m",), "settings": {"p-esd": {"beta": 2.0}}}
    (one,), (other,) = (expand(Grid(methods=(name,), **shared)) for name in ("p-esd", "p_esd"))
    assert dict(other.settings) == {"beta": 2.0} and other.method == one.method


def test_both_spellings_of_an_attack_have_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def attack(*_: object, settings: object, **__: object) -> None:
        asked.append(settings)
        raise CannotAttack("enough is known")

    monkeypatch.setattr("efface.api.attacking.attack", attack)
    for spelled in ("random-prefix", "random_prefix"):
        grid = Grid(
            models=("glyphs-ddpm",), methods=("negative",), concepts={"all": ("cat",)}, attacks=(spelled,),
            sizes={"target": 1}, drawing={"steps": 2}, attacking={"settings": {spelled: {"length": 3}}},  # type: ignore[arg-type]
        )  # fmt: skip
        do_job(grid, expand(grid)[0], Store(tmp_path / spelled))
    assert asked == [{"random-prefix": {"length": 3}}] * 2
