"""`efface purify`, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from efface.cli.app import main
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.edits.provenance import describe_run
from efface.models.loading import load
from tiny import tiny_pipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("purify") / "model"
    tiny_pipeline("v_prediction").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def edit(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = load(model)
    values = {name: -4 * w.detach() for name, w in base.weights.items() if ".attn2.to_v." in name}
    made = Edit(values, describe_run(base, Erasure(("cat",)), "test", {}))
    return made.save(tmp_path_factory.mktemp("edit") / "cat.safetensors")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    file = tmp_path / "photo.jpg"
    Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(file)
    return file


def scale_pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file)).astype(float)


def test_a_picture_before_and_after(
    model: str, edit: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    args = ["--model", model, "--edit", str(edit), "--image", str(photo), "--image", str(photo), "--prompt", "a cat"]
    assert main(["purify", *args, "--out", str(out), "--steps", "8", "--refine", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((out / "purify.json").read_text())
    assert len(told["pictures"]) == 2
    row = told["pictures"][0]
    before, base, after = (scale_pixels(out / row[kind]) for kind in ("before", "base", "after"))
    assert before.shape == (16, 16, 3)
    assert row["base_changed"] == pytest.approx(np.abs(base - before).mean(), rel=1e-4)
    assert row["after_changed"] == pytest.approx(np.abs(after - before).mean(), rel=1e-4)
    assert not np.array_equal(base, after)
    assert told["invert_with"] == "base" and told["steps"] == 8


def test_in_half_the_bytes(model: str, edit: Path, photo: Path, tmp_path: Path) -> None:
    shown, changed = [], []
    for dtype in ("fp32", "bf16"):
        args = ["--model", model, "--edit", str(edit), "--image", str(photo), "--prompt", "a cat", "--out"]
        assert main(["purify", *args, str(tmp_path / dtype), "--steps", "4", "--dtype", dtype]) == 0
        told = json.loads((tmp_path / dtype / "purify.json").read_text())
        shown.append(scale_pixels(tmp_path / dtype / told["pictures"][0]["base"]))
        changed.append(told["pictures"][0]["base_changed"])
    assert not np.array_equal(*shown)
    assert changed[1] == pytest.approx(changed[0], rel=0.05)


def test_without_an_edit_s_strength_after_is_the_base_and_either_model_inverts(
    model: str, edit: Path, photo: Path, tmp_path: Path
) -> None:
    args = ["--model", model, "--edit", str(edit), "--image", str(photo), "--prompt", "a cat", "--steps", "4"]
    made = {}
    for name, more in {
        "off": ["--strength", "0"],
        "base": [],
        "edit": ["--invert-with", "edit"],
    }.items():
        assert main(["purify", *args, "--out", str(tmp_path / name), *more]) == 0
        made[name] = {kind: scale_pixels(tmp_path / name / f"0000-{kind}.png") for kind in ("base", "after")}
    assert np.array_equal(made["off"]["after"], made["off"]["base"])
    assert np.array_equal(made["off"]["base"], made["base"]["base"])
    assert not np.array_equal(made["base"]["after"], made["edit"]["after"])


BAD = {
    "no picture": ([], "no picture"),
    "missing": (["--image", "{tmp}/nowhere.png"], "no file"),
    "text": (["--image", "{tmp}/text.png"], "no readable picture"),
    "steps": (["--image", "{photo}", "--steps", "0"], "--steps is at least 1"),
    "guidance": (["--image", "{photo}", "--guidance", "-1"], "--guidance at least 0"),
    "no number": (["--image", "{photo}", "--guidance", "nan"], "--guidance at least 0"),
    "empty prompt": (["--image", "{photo}", "--prompt", " "], "the prompt is empty; describe what the pictures show"),
    "unwritable": (["--image", "{photo}", "--out", "/proc/x"], "cannot write"),
    "edit": (["--image", "{photo}", "--edit", "{tmp}/no.safetensors"], "no file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_a_model_is_loaded(
    case: str,
    edit: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("efface.load", lambda *_: pytest.fail("work began"))
    (tmp_path / "text.png").write_text("no picture")
    args, says = BAD[case]
    given = [each.format(tmp=tmp_path, photo=photo) for each in args]
    for flag, value in (("--edit", str(edit)), ("--out", str(tmp_path / "out")), ("--prompt", "a cat")):
        given += [] if flag in given else [flag, value]
    assert main(["purify", "--model", "glyphs", *given]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.rglob("*-after.png"))


def test_an_edit_of_another_base_is_refused(
    edit: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    other = tmp_path / "other"
    tiny_pipeline("v_prediction", seed=3).save_pretrained(other)
    args = ["--model", str(other), "--edit", str(edit), "--image", str(photo), "--prompt", "a cat"]
    assert main(["purify", *args, "--out", str(tmp_path / "out")]) == 2
    assert "the edit was made for" in capsys.readouterr().err
