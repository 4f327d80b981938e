"""What a command finds under --out: the results of the same request are made again, those of another stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import efface
from efface.api.diagnosing import neurons
from efface.api.drawing import draw
from efface.api.purifying import purify
from efface.cli.app import main
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.edits.provenance import describe_run
from efface.models.adapters.sd import StableDiffusion
from tiny import tiny_model

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    return tiny_model()


def save_edit(model: StableDiffusion, file: Path, scale: float) -> Path:
    values = {name: scale * w.detach() for name, w in model.weights.items() if ".attn2.to_v." in name}
    return Edit(values, describe_run(model, Erasure(("cat",)), "test", {})).save(file)


@pytest.fixture
def edit(model: StableDiffusion, tmp_path: Path) -> Path:
    Image.new("RGB", (16, 16), "red").save(tmp_path / "photo.png")
    return save_edit(model, tmp_path / "cat.safetensors", 0.5)


def draw_once(model: StableDiffusion, edit: Path, out: Path, word: str, **more: Any) -> Any:
    return draw(model, f"a {word}", out, edits=[edit], steps=2, **more)


def purify_once(model: StableDiffusion, edit: Path, out: Path, word: str, **more: Any) -> Any:
    return purify(model, edit, edit.with_name("photo.png"), f"a {word}", out, steps=2, **more)


def look_once(model: StableDiffusion, edit: Path, out: Path, word: str, **more: Any) -> Any:
    settings = {"seeds": 2, "points": 2, "steps": 4, "draws": 20, "top": 0.2}
    return neurons(model, edit, "cat", f"a {word}", out, **settings, **more)


MAKERS = {"draw.json": draw_once, "purify.json": purify_once, "neurons.json": look_once}


@pytest.mark.parametrize("described", MAKERS)
def test_results_of_another_request_are_kept(
    described: str, model: StableDiffusion, edit: Path, tmp_path: Path
) -> None:
    make, out = MAKERS[described], tmp_path / "out"
    make(model, edit, out, "dog")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    make(model, edit, out, "dog")
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    with pytest.raises(FileExistsError, match=rf"results of another request \({described} has .* --overwrite"):
        make(model, edit, out, "lion")
    save_edit(model, edit, 0.25)  # another edit under the same name
    with pytest.raises(FileExistsError, match=r"has another edit_digests?\)"):
        make(model, edit, out, "dog")
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    make(model, edit, out, "lion", overwrite=True)
    assert (out / described).read_bytes() != before[described]
    (out / described).write_text("no JSON")
    with pytest.raises(FileExistsError, match=rf"{described} exists and can't be read"):
        make(model, edit, out, "lion")


def test_other_settings_are_another_request(model: StableDiffusion, tmp_path: Path) -> None:
    draw(model, "a dog", tmp_path / "out", steps=2)
    assert json.loads((tmp_path / "out/draw.json").read_text())["steps"] == 2
    with pytest.raises(FileExistsError, match=r"draw.json has another steps, guidance\)"):
        draw(model, "a dog", tmp_path / "out", steps=3, guidance=2.0)
    draw(model, "a dog", tmp_path / "elsewhere", steps=3, guidance=2.0)


@pytest.mark.parametrize("command", ["draw", "purify", "neurons"])
def test_the_flag_is_explained(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "--overwrite" in capsys.readouterr().out


def test_an_edit_has_the_same_digest_in_memory_and_as_a_file(edit: Path) -> None:
    loaded = Edit.load(edit)
    again = loaded.save(edit.with_name("again.safetensors"))
    assert loaded.digest == Edit.load(again).digest and len(loaded.digest) == 32
    assert efface.Edit is Edit
