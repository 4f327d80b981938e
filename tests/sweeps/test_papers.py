"""The papers' grids: all are foreseen, and the two smallest are run from end to end (`make grids` runs all)."""

from __future__ import annotations

from pathlib import Path

import pytest

import paper_grids
from efface.cli.app import main
from efface.sweeps.forecast import forecast
from efface.sweeps.grid import read_grid

NAMES = sorted(file.stem for file in paper_grids.PAPERS.glob("*.toml"))


def test_every_grid_of_a_paper_has_its_way_of_being_cut_short() -> None:
    assert sorted(paper_grids.CUTS) == NAMES


@pytest.mark.parametrize("name", ["abo-objects", "erasediff-ddpm"])
def test_a_papers_grid_runs_from_end_to_end(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = paper_grids.run(name, tmp_path, lambda: str(capsys.readouterr()))
    assert {line["model"] for line in lines} == {str(tmp_path / "model")}


def test_a_grid_says_what_it_will_take_and_what_has_to_be_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(paper_grids.PAPERS / "eap-nudity.toml")
    assert main(["sweep", file, "--out", str(tmp_path / "out"), "--dry-run", "--seconds-picture", "2"]) == 0
    told = capsys.readouterr().out
    pictures = 4703 * (4 + 1)  # four methods and the untouched base
    assert f"{pictures:,} pictures to judge" in told and "4 edits, 4 evaluations, 0 attacks" in told
    assert "to be fetched: the model CompVis/stable-diffusion-v1-4" in told
    assert "to be fetched: the suite i2p, of AIML-TUDA/i2p" in told
    assert "memory of trainings of CompVis/stable-diffusion-v1-4 is known when its weights are there" in told
    assert not (tmp_path / "out").exists()


def test_the_memory_is_planned_where_the_model_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = paper_grids.list_flags("erasediff-ddpm", tmp_path)
    assert main(["sweep", *flags, "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "memory: at most " in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_every_grid_of_a_paper_is_foreseen(name: str) -> None:
    found = forecast(read_grid(paper_grids.PAPERS / f"{name}.toml"))
    assert found.jobs and "the model" in " ".join(found.fetched)
