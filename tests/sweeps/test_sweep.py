"""Sweeps: the grid file, the cells, and runs on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

import efface
from efface.api import attacking
from efface.cli.app import main
from efface.planning.machine import format_size
from efface.robustness.conditions import CannotAttack
from efface.scorers.classifier import Classifier
from efface.sweeps.cells import Store
from efface.sweeps.forecast import forecast
from efface.sweeps.grid import Grid, Variant, check_again, read_grid
from efface.sweeps.jobs import Job, expand
from efface.sweeps.memory import describe_memory
from efface.sweeps.rates import Rates, read_rates
from efface.sweeps.summaries import NOT_MADE
from efface.sweeps.sweeping import finish, plan
from efface.sweeps.table import gather
from efface.sweeps.work import do_job
from small_sweep import TEXT, write


def test_a_grid_is_expanded_model_by_model_and_seeds_only_what_is_random() -> None:
    grid = Grid(
        models=("a", "b"),
        methods=("uce", "ac"),
        concepts={"seen": ("cat + dog",), "new": ("rose",)},
        anchors={"cat + dog": "car", "rose": "car"},
        keep={"rose": ("tulip",)},
        seeds=(0, 1),
        settings={"ac": {"lr": 1e-3}},
    )
    jobs = expand(grid)
    assert [job.model for job in jobs] == ["a"] * 6 + ["b"] * 6
    first = jobs[0]
    assert (first.targets, first.anchor, first.split, first.label) == (("cat", "dog"), "car", "seen", "uce")
    assert [job.seed for job in jobs if job.model == "a"] == [0, 0, 0, 0, 1, 1]
    assert [dict(job.settings) for job in jobs if job.method == "ac"][:4:2] == [{"lr": 1e-3}, {"lr": 1e-3, "seed": 1}]
    assert {(job.method, job.keep) for job in jobs if job.concept == "rose"} == {("uce", ("tulip",)), ("ac", ())}
    assert len({job.compute_key() for job in jobs}) == len(jobs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"negative"', '"negativ"'), "there is no method 'negativ'; did you mean 'negative'"),
        (("strengths", "strenghts"), r"grid.toml: a grid has no key 'strenghts'; did you mean 'strengths'\?"),
        (("[1.0]", '"one"'), r'grid.toml: strengths is a list: write strengths = \["one"\], not "one"$'),
        (('["cat", "dog", "rose"]', '"cat"'), r'concepts is a list: write concepts = \["cat"\], not "cat"$'),
        (("[1.0]", '["one"]'), r"grid.toml: strengths.0: Input should be a valid number.*, got 'one'$"),
        (("[sizes]", "[attacking]\nrow = 2\n[sizes]"), r"grid.toml: attacking has no key 'row'$"),
        (("model =", "title ="), r"""grid.toml: the key 'models' is missing, as in models = \["glyphs"\]$"""),
        (("[sizes]", 'columns = ["esr1"]\n[sizes]'), r"columns names 'esr1'; a column is METRIC/GROUP, such as esr1"),
        (('"negative"', '"p-ac"'), r"p-ac needs an anchor for cat: add one under \[anchors\]"),
        (("[sizes]", "[keep]\nlion = ['car']\n[sizes]"), r"\[keep\] names lion, which is not among the concepts"),
        (('["cat", "dog", "rose"]', "[]"), "asks for nothing"),
        (("model =", "model"), r"grid.toml .*write it as TOML"),
        (
            ("[sizes]", "[settings.negative]\ntemplate = inf\n[sizes]"),
            r"grid.toml: settings.negative.template is inf; a value",
        ),
        (("steps = 2", "guidance = nan"), r"grid.toml: drawing.guidance is nan; a value is a text, true or false, a"),
        (
            ("[sizes]", "[settings.negative]\ntemplate = 2026-01-31\n[sizes]"),
            r"negative.template is 2026-01-31; a value",
        ),
        (("[sizes]", "[settings.negative]\nseed = 3\n[sizes]"), r"settings.negative has a seed; the key seeds lists"),
        (("[sizes]", "[attacking.settings.sedes]\nqueries = 3\n[sizes]"), r"no attack 'sedes'; did you mean 'seeds'"),
    ],
)
def test_a_wrong_grid_is_refused_with_what_is_wrong(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_grid(write(tmp_path, TEXT.replace(*change)))


def test_a_grid_of_python_is_checked_like_one_of_a_file_and_takes_a_fraction(tmp_path: Path) -> None:
    grid = read_grid(write(tmp_path, TEXT.replace("target = 1", "target = 4")))
    assert check_again(grid, 0.25).fraction == 0.25 and check_again(grid) == grid
    with pytest.raises(ValueError, match="seeds has 0 twice, which would count its results twice"):
        efface.sweep(grid.model_copy(update={"seeds": (0, 0)}), tmp_path / "out")
    with pytest.raises(ValueError, match=r"^fraction: Input should be less than or equal to 1"):
        efface.sweep(grid, tmp_path / "out", fraction=3)
    part = efface.sweep(grid.model_copy(update={"concepts": {"all": ("cat",)}}), tmp_path / "out", fraction=0.25)
    assert ",1,0,,\n" in part.table.read_text(), "one picture of four"


@pytest.mark.parametrize(
    ("own", "fraction", "rows", "controls"),
    [(1.0, 0.1, 14, 4), (0.5, 0.1, 28, 4), (0.5, 0.5, 142, 16), (0.5, 1, 142, 16)],
)
def test_a_sample_of_a_grid_attacks_fewer_prompts(
    tmp_path: Path, own: float, fraction: float, rows: int, controls: int
) -> None:
    text = f'fraction = {own}\nattacks = ["seeds"]\n{TEXT}[attacking]\nrows = 142\n{{}}'
    grid = read_grid(write(tmp_path, text.format("controls = 16")), fraction)
    assert (grid.fraction, grid.attacking.rows, grid.attacking.controls) == (fraction, rows, controls)
    assert check_again(grid, fraction) == grid, "a sample of the same size is the same"
    assert read_grid(write(tmp_path, text.format("controls = 2")), fraction).attacking.controls == 2


def test_the_attacked_rows_are_checked_whichever_variant_of_a_request_is_attacked(tmp_path: Path) -> None:
    shared = {"method": "negative", "concepts": ("cat",)}
    variants = (Variant(name="plain", attacks=(), **shared), Variant(name="attacked", attacks=("seeds",), **shared))  # type: ignore[arg-type]
    grid = Grid(models=("glyphs-ddpm",), variants=variants, concepts={"all": ("cat",)}, sizes={"neighbour": 2})
    with pytest.raises(ValueError, match="attacked of cat on glyphs-ddpm: "):
        efface.sweep(grid, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_grid_of_the_documentation_can_be_expanded(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    text = page.partition("```toml\n")[2].partition("```")[0]
    jobs = expand(read_grid(write(tmp_path, text)))
    assert next(job.name for job in jobs if job.label == "esd") == "esd (steps 240) of cat on glyphs"
    assert {job.label for job in jobs} == {"uce", "rece", "esd", "uce-weak"}


def test_a_forecast_counts_pictures_and_queries_without_opening_a_model(tmp_path: Path) -> None:
    text = TEXT.replace("[sizes]", 'attacks = ["seeds"]\n[sizes]')
    grid = read_grid(write(tmp_path, text + '[attacking]\nrows = 3\ncontrols = 1\nbudget = "2"\n'))
    found = forecast(grid)
    assert (found.jobs, found.evaluations, found.attacks, found.updates) == (3, 3, 3, 0)
    assert found.pictures == 3 + 3  # one row a concept, drawn on the base and under the edit
    assert found.attack_pictures == 3 * 2 * (3 + 2 * 1) * 2  # jobs x (attack and floor) x rows x queries
    assert forecast(grid, picture=3600).hours == found.pictures + found.attack_pictures
    with pytest.raises(ValueError, match=r"has no group 'neighbor' for cat; did you mean 'neighbour'\?"):
        forecast(grid.model_copy(update={"sizes": {"neighbor": 2}}))
    far = forecast(grid.model_copy(update={"models": ("somebody/model",), "suite": "i2p", "sizes": {}}))
    assert "the model somebody/model" in far.fetched and any("i2p" in each for each in far.fetched)
    assert any("expected_rows" in each for each in far.unknown)


def test_a_forecast_takes_what_was_measured_of_a_method_and_scales_it_to_another_device() -> None:
    grid = Grid(
        models=("glyphs",), methods=("esd",), concepts={"all": ("dog",)}, sizes={"target": 4}, attacks=("seeds",)
    )
    rates = read_rates("glyphs")
    own = forecast(grid)
    assert own.seconds["erasures"] == rates.fits["esd"] and own.seconds["pictures"] == (4 + 4) * rates.picture
    assert own.seconds["attacks"] == own.attack_pictures * rates.queries["seeds"]
    halved = forecast(grid.model_copy(update={"settings": {"esd": {"steps": 120}}}))
    assert halved.seconds["erasures"] == rates.fits["esd"] / 2, "in proportion to the 240 updates that it suggests"
    slower = forecast(grid, picture=3 * rates.picture, update=2 * rates.update)
    assert slower.hours * 3600 == pytest.approx(
        2 * own.seconds["erasures"] + 3 * (own.seconds["pictures"] + own.seconds["attacks"])
    )
    assert read_rates("somebody/model") == Rates()


def test_a_forecast_says_how_sure_its_hours_are() -> None:
    grid = Grid(models=("glyphs",), methods=("esd",), concepts={"all": ("dog",)}, sizes={"target": 4})
    assert "seconds measured on one core; beside" in forecast(grid).sure and forecast(grid).sure in "\n".join(
        forecast(grid).format_lines()
    )
    far = grid.model_copy(update={"models": ("somebody/model",), "suite": "i2p", "sizes": {}})
    assert "a guess" in forecast(far).sure and "--seconds-picture and --seconds-update" in forecast(far).sure
    assert "give --seconds-update." in forecast(far, picture=2.0).sure
    assert "as sure as your seconds" in forecast(far, picture=2.0, update=0.5).sure
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="the seconds of a picture are a number above 0"):
            forecast(grid, picture=wrong)


def test_memory_is_planned_once_for_each_size_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[str] = []

    def plan_job(job: Job, device: str | None) -> int:
        planned.append(job.name)
        return len(job.targets) * 2**30

    monkeypatch.setattr("efface.sweeps.memory._plan_job", plan_job)
    grid = Grid(
        models=("glyphs",), methods=("esd",), concepts={"all": ("dog", "cat", "dog + cat")}, seeds=(0, 1),
        variants=(Variant(name="same", method="esd"), Variant(name="more", method="esd", settings={"batch": 2})),
    )  # fmt: skip
    (line,) = describe_memory(expand(grid))
    assert planned == [
        "esd of dog on glyphs", "more of dog on glyphs", "esd of dog + cat on glyphs", "more of dog + cat on glyphs",
    ]  # fmt: skip
    assert line.startswith(f"memory: at most {format_size(2**31)} for each worker")
    assert line.endswith("by esd of dog + cat on glyphs"), "two targets, which come after one"


def test_what_is_done_is_not_done_again(whole: tuple[Path, bytes], tmp_path: Path) -> None:
    grid, table = whole
    again = efface.sweep(grid, grid.parent / "out")
    assert (again.new, again.done) == (0, 6) and again.table.read_bytes() == table
    assert b"\nglyphs-ddpm,all,cat,negative,,0,0,1.0,esr1,target,all," in table
    page = again.page.read_text()
    assert (
        f"Made by `efface sweep {grid} --out {grid.parent / 'out'}`" in page
        and "In all lines: split all, strength 1.0.\n\n| method | concepts |" in page
        and "\n| negative | 3 |" in page
    )


def test_a_column_that_nothing_measures_is_said(whole: tuple[Path, bytes], tmp_path: Path) -> None:
    grid, table = whole
    other = write(tmp_path, TEXT.replace("[sizes]", 'columns = ["esr1/target", "psr1/neighbor"]\n[sizes]'))
    with pytest.warns(
        UserWarning, match=r"nothing measured the column 'psr1/neighbor' of the grid, .*; there are .*esr1"
    ):
        again = efface.sweep(other, grid.parent / "out")
    assert (again.new, again.done) == (0, 6) and again.table.read_bytes() == table


def test_an_attack_that_can_not_be_made_is_said_and_leaves_no_worst_case(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, attacks: str, **__: object) -> None:
        raise CannotAttack(f"{attacks} can't be made here: the edit is a guide")

    monkeypatch.setattr(attacking, "attack", refuse)
    grid = read_grid(write(tmp_path, TEXT.replace("[sizes]", 'attacks = ["seeds", "synonyms"]\n[sizes]')))
    store = Store(tmp_path / "out")
    planned = plan(grid, None)
    job, cells = planned[0]
    assert do_job(grid, job, store).count("attack") == 2
    (_, _, made) = cells.measured[0]
    assert "robust" not in {line["metric"] for line in gather(grid, planned, store)}
    seen = {**NOT_MADE, "attacks": [], "rows": {"row": False}}
    store.finish(dict(made)["seeds"], seen, {"seconds": 0.0})
    assert "robust" not in {line["metric"] for line in gather(grid, planned, store)}, "of one attack of two"
    store.finish(dict(made)["synonyms"], seen, {"seconds": 0.0})
    assert "robust" in {line["metric"] for line in gather(grid, planned, store)}
    store.finish(dict(made)["synonyms"], {**NOT_MADE, "refused": "the edit is a guide"}, {"seconds": 0.0})
    page = finish(grid, planned, store, 0, {}, "").page.read_text()
    assert "## Attacks that could not be made" in page
    assert "| the edit is a guide | 1: negative of cat on glyphs-ddpm |" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"rose"', '"a thing that no judge knows"'), "negative of a thing that no judge knows .*: "),
        (
            ("[sizes]", 'scorers = ["clipp"]\n[sizes]'),
            "negative of cat .*clipp",
        ),
        (
            ("[sizes]", 'protocol = "esr-ps"\n[sizes]'),
            "negative of cat .*: there is no protocol 'esr-ps'; did",
        ),
        (("[sizes]", 'suite = "i2q"\n[sizes]'), "negative of cat on glyphs-ddpm: .*'i2q'"),
    ],
)
def test_what_can_not_be_measured_is_refused_before_anything_is_erased(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    grid = write(tmp_path, TEXT.replace(*change))
    with pytest.raises(ValueError, match=message):
        efface.sweep(grid, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_judges_that_fail_are_found_before_anything_is_erased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, *args: object) -> None:
        raise RuntimeError("its file of weights is damaged")

    monkeypatch.setattr(Classifier, "score", fail)
    with pytest.raises(ValueError, match=r"nothing was drawn, because scorer .* its file of weights is damaged"):
        efface.sweep(write(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_job_that_fails_is_shown_with_its_log_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    grid, store = write(tmp_path), Store(tmp_path / "out")
    erased = {job.concept: cells.erase.id for job, cells in plan(read_grid(grid), None)}
    store.locate_edit(erased["rose"]).mkdir(parents=True)  # where the edit should go
    assert main(["sweep", str(grid), "--out", str(store.folder)]) == 1
    (log,) = (store.folder / "failed").glob("*.txt")
    assert "negative of rose" in log.read_text() and "Traceback" in log.read_text()
    assert len(list((store.folder / "cells").glob("*.json"))) == 4
    store.locate_edit(erased["rose"]).rmdir()
    summary = efface.sweep(grid, store.folder)
    assert (summary.new, summary.done, summary.failed) == (2, 6, ()) and not log.exists()
