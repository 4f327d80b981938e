"""Arguments of the library's functions are read as those of the commands: one or several, and choices among few."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import efface
from efface.models.adapters.sd import StableDiffusion


def test_a_text_where_several_may_stand_is_one_and_not_its_letters(
    eps_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    edit = efface.erase(eps_model, "cat", "uce").save("cat.safetensors")
    suite = efface.draft_suite(eps_model, "cat", "suite.csv", near="tiger", size=4)
    with suite.open(encoding="utf-8") as file:
        near = {row["class"] for row in csv.DictReader(file) if row["group"] == "neighbour"}
    assert near == {"tiger"}
    for edits in ("cat.safetensors", edit, efface.Edit.load(edit)):
        assert len(efface.draw(eps_model, "a cat", tmp_path / type(edits).__name__, edits=edits, steps=1)) == 1
    with pytest.raises(ValueError, match="two edits or more, got 1"):
        efface.merge(eps_model, "cat.safetensors")
    with pytest.raises(FileNotFoundError, match=r"no file dog\.safetensors"):
        efface.neurons(eps_model, edit, "cat", "kitty", "neurons", compare="dog.safetensors")
    with pytest.raises(FileNotFoundError, match=r"no file dog\.safetensors"):
        efface.play(eps_model, "dog.safetensors")
    with pytest.raises(FileNotFoundError, match=r"no file esd\.json"):
        efface.report("cat", "cat.html", imports="esd.json", erased="cat")
    with pytest.raises(ValueError, match="no scorer 'colours'"):
        efface.takedown(eps_model, "nudity", "takedown", scorers="colours", dry_run=True)


def test_an_edit_named_twice_is_refused_however_its_file_is_written(
    eps_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    edit = efface.erase(eps_model, "cat", "uce").save("cat.safetensors")
    for again in (edit, edit.resolve(), f"./{edit}"):
        with pytest.raises(ValueError, match="an edit is named twice"):
            efface.neurons(eps_model, "cat.safetensors", "cat", "kitty", "neurons", compare=again)
