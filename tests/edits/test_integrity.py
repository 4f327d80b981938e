"""An Edit's file is refused unless it is what was saved: numbers that can be weights, metadata of the right types."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from efface.cli.app import main
from efface.edits.deltas import pack
from efface.edits.edit import Edit, apply
from efface.edits.strength import check_strength
from efface.files import read_tensors
from efface.models.adapters.sd import StableDiffusion
from efface.models.fingerprint import compute_digests
from judging_fixtures import edit_of, world_model

WEIGHT = "unet.conv_in.weight"
META: dict[str, Any] = {
    "kind": "edit",
    "method": "ESD",
    "arguments": {"steps": 2},
    "request": {"targets": ["cat"], "anchor": "", "keep": []},
    "base": {"fp32": "0" * 32},
    "model": "tiny",
    "notes": {},
    "cost": {"seconds": 1.5},
}


def draw_numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def write(path: Path, values: dict[str, Tensor], meta: Any) -> Path:
    """A file of the form that edits had before they carried digests."""
    save_file(values, path, metadata={"efface": json.dumps(meta)})
    return path


def test_a_saved_edit_loads_as_it_was_and_carries_digests(tmp_path: Path) -> None:
    edit = Edit({WEIGHT: draw_numbers(4, 3), "unet.w:mask": pack(draw_numbers(9) > 0)}, META)
    path = edit.save(tmp_path / "e.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Edit.load(path)
    assert found.same_as(edit) and "digest" not in found.meta
    stored = read_tensors(path)[1]
    assert set(stored["digests"]) == set(edit.values) and len(stored["digest"]) == 32
    assert found.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_every_byte_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    """Case 63: where a flip leaves the same tensors and metadata nothing was damaged; every other one is refused."""
    edit = Edit({WEIGHT: draw_numbers(4, 3), "b": draw_numbers(5)}, META)
    path = edit.save(tmp_path / "e.safetensors")
    whole, rng = path.read_bytes(), random.Random(0)
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            found = Edit.load(path)
        except (ValueError, RecursionError):
            continue
        assert found.same_as(edit), f"byte {place} was changed, and the file was read as another edit"


def test_the_tensor_that_was_changed_is_named(tmp_path: Path) -> None:
    path = Edit({WEIGHT: draw_numbers(4, 3), "b": draw_numbers(5)}, META).save(tmp_path / "e.safetensors")
    values, meta = read_tensors(path)
    values["b"][2] += 1e-3
    write(path, values, meta)
    with pytest.raises(ValueError, match=r"e.safetensors is damaged: 'b' is not as it was saved \(1 of 2 tensors"):
        Edit.load(path)
    write(path, {WEIGHT: values[WEIGHT]}, meta)
    with pytest.raises(ValueError, match="saved with other tensors"):
        Edit.load(path)
    write(path, Edit.load(Edit({"b": draw_numbers(5)}, META).save(path)).values, meta | {"method": "UCE"})  # type: ignore
    with pytest.raises(ValueError, match="damaged"):
        Edit.load(path)


def test_metadata_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = Edit({"b": draw_numbers(5)}, META).save(tmp_path / "e.safetensors")
    values, meta = read_tensors(path)
    with pytest.raises(ValueError, match="its metadata is not as it was saved"):
        Edit.load(write(path, values, meta | {"method": "UCE"}))
    with pytest.raises(ValueError, match="its digest is incomplete"):
        Edit.load(write(path, values, {k: v for k, v in meta.items() if k != "digest"}))


def test_a_file_without_a_digest_loads_and_says_that_it_has_none(tmp_path: Path) -> None:
    path = write(tmp_path / "old.safetensors", {WEIGHT: draw_numbers(4, 3)}, META)
    with pytest.warns(UserWarning, match="old.safetensors has no digest, because an earlier version wrote it"):
        found = Edit.load(path)
    assert torch.equal(found.values[WEIGHT], draw_numbers(4, 3))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.int64])
def test_dtypes_that_cannot_be_a_weight_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    """Case 64."""
    values = {WEIGHT: torch.ones(4, 3).to(dtype)}
    found = str(dtype).removeprefix("torch.")
    with pytest.raises(ValueError, match=f"holds 'unet.conv_in.weight' as {found}, where floating-point numbers"):
        Edit.load(write(tmp_path / "e.safetensors", values, META))
    with pytest.raises(ValueError, match="is not saved"):
        Edit(values, META).save(tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


def test_an_edit_without_tensors_is_refused_unless_it_is_a_guide(tmp_path: Path) -> None:
    """Case 64."""
    with pytest.raises(ValueError, match="no tensors and no guide: it would change nothing"):
        Edit.load(write(tmp_path / "e.safetensors", {}, META))
    guide = {"name": "negative", "arguments": {"prompt": "cat"}}
    assert Edit.load(Edit({}, META | {"guide": guide}).save(tmp_path / "g.safetensors")).build_guider() is not None


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused_when_read_and_when_written(number: float, tmp_path: Path) -> None:
    """Case 61: one number is enough."""
    values = {WEIGHT: draw_numbers(4, 3), "b:down": draw_numbers(2, 3), "b:up": draw_numbers(4, 2)}
    values["b:up"][1, 1] = number
    with pytest.raises(ValueError, match="NaN or infinite numbers: 1 of 8 in 'b:up'"):
        Edit.load(write(tmp_path / "e.safetensors", values, META))
    with pytest.raises(ValueError, match=r"is not saved to .*NaN or infinite"):
        Edit(values, META).save(tmp_path / "new.safetensors")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"base": None}, "base is null, where a table belongs"),
        ({"guide": None}, "guide is null, where a table belongs"),
        ({"guide": {"name": 3, "arguments": {}}}, "guide.name is a number, where a text"),
        ({"guide": {"name": "negative"}}, "guide.arguments is null"),
        ({"guide": []}, "guide is a list"),
        ({"request": "cat"}, "request is a text, where a table"),
        ({"request": {"targets": "cat"}}, "request.targets is a text, where a list"),
        ({"request": {"targets": ["cat", 3]}}, "request.targets is a number, where a list of texts"),
        ({"request": {"targets": ["cat"], "anchor": None}}, "request.anchor is null, where a text"),
        ({"method": ["ESD"]}, "method is a list, where a text"),
        ({"arguments": True}, "arguments is true or false"),
        ({"base": {"fp32": 7}}, "base.fp32 is a number, where a text"),
        ({"cost": {"seconds": "long"}}, "cost.seconds is a text, where a number"),
        ({"notes": 1}, "notes is a number"),
    ],
)
def test_metadata_of_the_wrong_type_gives_a_sentence(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    """Case 65."""
    with pytest.raises(ValueError, match=f"e.safetensors has metadata of the wrong type: {says}"):
        Edit.load(write(tmp_path / "e.safetensors", {WEIGHT: draw_numbers(4, 3)}, {**META, **change}))


@pytest.mark.parametrize("meta", [[], None, "edit", 3])
def test_metadata_that_is_no_table_is_refused(meta: Any, tmp_path: Path) -> None:
    """Case 65."""
    with pytest.raises(ValueError, match=r"e\.safetensors"):
        Edit.load(write(tmp_path / "e.safetensors", {WEIGHT: draw_numbers(4, 3)}, meta))


def test_a_models_own_weights_are_numbers() -> None:
    with pytest.raises(ValueError, match=r"'unet.w' holds NaN or infinite numbers \(2 of 4\)"):
        compute_digests({"unet.v": torch.ones(2), "unet.w": torch.tensor([1, float("nan"), float("inf"), 0])})


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    return world_model()


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), -float("inf"), 1e30, -10.5])
def test_strengths_beyond_reason_are_refused(strength: float, model: StableDiffusion, tmp_path: Path) -> None:
    """Case 71."""
    with pytest.raises(ValueError, match="a strength is a number from -10 to 10, where 0 is the untouched model"):
        check_strength(strength)
    edit = Edit.load(edit_of(model, tmp_path / "cat.safetensors"))
    with pytest.raises(ValueError, match="a strength is"), apply(model, [edit], [strength]):
        pass


@pytest.mark.parametrize("command", ["draw", "evaluate", "attack", "export", "purify"])
@pytest.mark.parametrize("strength", ["nan", "inf", "1e30"])
def test_no_command_takes_them(
    command: str, strength: str, model: StableDiffusion, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Case 71: the model that is named is nowhere, and is not opened before the strength is refused."""
    edit, out = edit_of(model, tmp_path / "cat.safetensors"), tmp_path / "out"
    more = {
        "draw": ["--prompt", "a cat"],
        "evaluate": ["--suite", str(tmp_path / "p.csv"), "--scorer", "artefact"],
        "attack": ["--suite", str(tmp_path / "p.csv"), "--scorer", "artefact"],
        "purify": ["--image", str(tmp_path / "p.png"), "--prompt", "a cat"],
    }
    (tmp_path / "p.png").touch()
    (tmp_path / "p.csv").write_text("prompt,seed,asks\na cat,1,cat\na dog,2,\n")
    flags = ["--model", "glyphs", "--edit", str(edit), "--out", str(out), "--strength", strength]
    assert main([command, *flags, *more.get(command, [])]) == 2
    assert "a strength is a number from -10 to 10" in capsys.readouterr().err
    assert not out.exists()
