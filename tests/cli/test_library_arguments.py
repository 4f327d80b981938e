"""Arguments of the library's functions are read as those of the commands: one or several, and choices among few."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import efface
from efface.api.evaluating import check_evaluation
from efface.cli.app import main
from efface.cli.completion import list_words
from efface.cli.erase import list_fields
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


def test_a_value_that_is_none_of_the_choices_is_refused_and_not_taken_for_another(
    eps_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    edit = efface.erase(eps_model, "cat", "uce").save("cat.safetensors")
    Image.new("RGB", (16, 16), "red").save("cat.png")
    wrong: Any = "edited"
    with pytest.raises(ValueError, match="no invert_with 'edited'; there are base, edit"):
        efface.purify(eps_model, edit, "cat.png", "a cat", "purified", steps=1, invert_with=wrong)
    with pytest.raises(ValueError, match="no sampler 'edited'; there are own, ddim, dpm, unipc"):
        efface.draw(eps_model, "a cat", "drawn", steps=1, sampler=wrong)
    with pytest.raises(ValueError, match="no sampler 'edited'; there are own"):
        efface.evaluate(eps_model, edit, "evaluated", sampler=wrong)
    with pytest.raises(ValueError, match="no attacks 'edited'; there are none, standard"):
        efface.evaluate(eps_model, edit, "evaluated", attacks=wrong)
    with pytest.raises(ValueError, match="no dtype 'edited'; there are fp32, fp16, bf16"):
        efface.export(eps_model, edit, "exported", dtype=wrong)
    with pytest.raises(ValueError, match="no format 'edited'; there are diffusers, single-file"):
        efface.export(eps_model, edit, "exported", format=wrong)
    given: Any
    for setting, given, says in (("moments", 16, "32, 8"), ("sampler", "edited", "ddim, dpm, unipc")):
        with pytest.raises(ValueError, match=f"no {setting} {given!r}; there are {says}"):
            efface.erase(eps_model, "cat", "esd", **{"steps": 1, setting: given})  # type: ignore[arg-type]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cat.png", "cat.safetensors"]


def test_sizes_of_groups_that_a_suite_lacks_do_not_mean_the_whole_suite() -> None:
    erasure = efface.Erasure(("cat",))
    with pytest.raises(ValueError, match=r"suite glyphs-objects has no group 'tagret' for cat; did you mean 'target'"):
        check_evaluation("glyphs", erasure, sizes={"tagret": 4, "target": 4})
    with pytest.raises(ValueError, match=r"suite glyphs-objects has no group 'caption' for cat"):
        check_evaluation("glyphs", erasure, sizes={"caption": 4})
    assert len(check_evaluation("glyphs", erasure, sizes={"target": 4, "caption": 4})[0].rows) == 4
    for fraction in (0, -1.0, 3.0, math.nan):
        with pytest.raises(ValueError, match="a share of the pictures, above 0 and at most 1"):
            check_evaluation("glyphs", erasure, fraction=fraction)


def test_a_checkpoint_of_a_method_that_saves_none_is_refused(eps_model: StableDiffusion, tmp_path: Path) -> None:
    for method in ("uce", "sld"):
        with pytest.raises(
            ValueError, match=rf"only a training is continued from a file, and {method} is .*checkpoint"
        ):
            efface.erase(eps_model, "cat", method, checkpoint=tmp_path / "checkpoint")


def test_a_fine_tuning_has_no_setting_that_it_would_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert "forget_images" not in {field.name for field in list_fields("finetune")}
    assert {"remain_images", "pictures"} <= {field.name for field in list_fields("finetune")}
    assert "--forget-images" not in list_words(("erase", "finetune"))
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "erase",
                "finetune",
                "--model",
                "glyphs",
                "--target",
                "cat",
                "--out",
                "a.safetensors",
                "--forget-images",
                "b",
            ]
        )
    assert stopped.value.code == 2 and "--forget-images" in capsys.readouterr().err


def test_a_draft_of_a_refused_request_does_not_judge_the_next_one(eps_model: StableDiffusion, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="no scorer 'nothing'"):
        efface.takedown(eps_model, "nudity", out, method="uce", scorers=("nothing",), dry_run=True)
    assert not out.exists()
