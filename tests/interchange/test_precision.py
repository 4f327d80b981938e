"""Weights in half precision: a rounding is no change, and what rounding takes from an edit is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import efface
from efface.api.exporting import write_export
from efface.cli.app import main
from efface.edits.edit import Edit
from efface.interchange.rounding import is_unchanged, measure_rounding
from efface.models.adapters import single_file
from efface.models.adapters.sd import StableDiffusion
from efface.models.base import Model
from lora_fixtures import build_dense, build_low_rank, edit_with, is_same_change, mask
from tiny import tiny_model, tiny_pipeline


def tuned_pipeline(edit: Edit, dtype: torch.dtype) -> Any:
    """A pipeline of the tiny model whose U-Net was fine-tuned, at this precision."""
    pipeline = tiny_pipeline()
    with torch.no_grad():
        for name, value in edit.values.items():
            pipeline.unet.get_parameter(name.removeprefix("unet.")).copy_(value)
    return pipeline.to(dtype)


def change_slightly(model: Model, relative: float) -> Edit:
    """New values of some matrices whose changes have rank 1 and this size, relative to the weights."""
    rng = torch.Generator().manual_seed(5)
    values = {}
    for name in (n for n in model.weights if "attn2.to_" in n and n.endswith("weight")):
        own = model.weights[name].detach().float()
        delta = torch.randn(len(own), 1, generator=rng) @ torch.randn(1, own.shape[1], generator=rng)
        values[name] = own + delta * (relative * own.norm() / delta.norm())
    return edit_with(model, values)


def open_both(folder: Path) -> tuple[Model, Model]:
    """The tiny model from its files, in fp32 and in bf16."""
    tiny_model().save_pretrained(folder / "base")
    wide, narrow = (efface.load(str(folder / "base"), "cpu", dtype) for dtype in ("fp32", "bf16"))
    return wide, narrow


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["folder", "single file", "weights, widened again"])
def test_what_is_stored_in_half_precision_changes_only_what_was_trained(
    layout: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = tiny_model()
    edit = build_dense(model, "attn2")
    tuned = tuned_pipeline(edit, dtype)
    place = tmp_path / "tuned.safetensors"
    if layout == "folder":
        place = tmp_path / "tuned"
        tuned.save_pretrained(place)
    elif layout == "single file":
        single_file.save(StableDiffusion(tuned, "tuned"), place, {})
    else:
        save_file({name: tensor.float() for name, tensor in tuned.unet.state_dict().items()}, place)
    back = efface.import_edit(model, place, "cat")
    assert sorted(back.names) == sorted(edit.names)


def test_a_base_in_half_precision_is_not_changed_by_its_own_rounding(tmp_path: Path) -> None:
    narrow = open_both(tmp_path)[1]
    edit = build_dense(tiny_model(), "attn2")
    tuned_pipeline(edit, torch.float32).save_pretrained(tmp_path / "tuned")
    back = efface.import_edit(narrow, tmp_path / "tuned", "cat")
    assert sorted(back.names) == sorted(edit.names) and torch.equal(
        back.values[edit.names[0]], edit.values[edit.names[0]]
    )


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_in_8_bits_come_in_as_an_edit_that_can_be_saved(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_model()
    edit = build_dense(model, "attn2")
    held = {name: t.to(dtype) for name, t in tuned_pipeline(edit, torch.float32).unet.state_dict().items()}
    save_file(held, tmp_path / "tuned.safetensors")
    back = efface.import_edit(model, tmp_path / "tuned.safetensors", "cat")
    back = Edit.load(back.save(tmp_path / "edit.safetensors"))
    assert sorted(back.names) == sorted(edit.names)
    assert all(torch.equal(back.values[n].float(), held[n.removeprefix("unet.")].float()) for n in back.names)


def test_a_change_is_no_rounding() -> None:
    own = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    assert is_unchanged(own, own.half()) and is_unchanged(own.bfloat16(), own) and is_unchanged(own, own.half().float())
    other = own.clone()
    other[3, 4] += 1e-6  # of full precision, so that it is no rounding of the base
    assert not is_unchanged(own, other)
    other = own.half()
    other[3, 4] *= 1.001
    assert not is_unchanged(own, other) and not is_unchanged(own, other.float())


def test_a_lora_of_an_edit_that_was_made_in_half_precision_holds_the_edit_alone(tmp_path: Path) -> None:
    """The edit's values are those of the rounded base; beside the base in fp32 the rounding would seem trained."""
    wide, narrow = open_both(tmp_path)
    edit = change_slightly(narrow, 5e-3)
    for format in ("lora", "kohya"):
        made = write_export(wide, edit, tmp_path / f"{format}.safetensors", format=format, pictures=0)
        assert made.about["lowest_rank"] == made.about["rank"] == 1 and made.about["residual"] < 1e-4


def test_a_model_in_half_precision_is_exported_as_a_lora(tmp_path: Path) -> None:
    narrow = open_both(tmp_path)[1]
    for edit in (change_slightly(narrow, 5e-3), build_low_rank(narrow, "attn2")):
        for dtype in ("fp32", "bf16"):
            place = tmp_path / f"{len(edit.values)}-{dtype}.safetensors"
            made = write_export(narrow, edit, place, format="lora", dtype=dtype, pictures=0)
            assert made.about["matched"] == len(edit.names) and made.about["residual"] < 1e-2


def test_edits_that_were_made_in_half_precision_are_added_up_without_its_rounding(tmp_path: Path) -> None:
    wide, narrow = open_both(tmp_path)
    one, two = change_slightly(narrow, 5e-3), build_dense(narrow, "attn2.to_k", "attn2.to_v")
    merged = efface.merge(wide, [one, two])
    for name in two.names:
        base = narrow.weights[name].detach().float()
        wanted = one.values[name] + two.values[name].float() - base if name in one.values else two.values[name]
        assert torch.allclose(merged.values[name], wanted, atol=1e-7)
    assert merged.meta["base"] == narrow.fingerprint()


@pytest.mark.parametrize("format", ["diffusers", "single-file"])
def test_what_is_rounded_away_is_said(format: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide, narrow = open_both(tmp_path)
    edit = change_slightly(wide, 2e-3)
    file = edit.save(tmp_path / "edit.safetensors")
    out = str(tmp_path / ("x" if format == "diffusers" else "x.safetensors"))
    asked = ["export", "--model", str(tmp_path / "base"), "--edit", str(file), "--format", format, "--pictures", "0"]
    assert main([*asked, "--out", out, "--dtype", "bf16"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    measured = measure_rounding(narrow, edit, 1.0)
    assert f"{measured.total:.1%} of the edit's change is rounded away in bfloat16; --dtype fp32 keeps" in told
    # An independent computation of one weight's share.
    name = measured.worst_name
    base, new = narrow.weights[name].detach().float(), edit.values[name]
    assert measured.worst == pytest.approx(float((new.bfloat16().float() - new).norm() / (new - base).norm()), rel=1e-4)
    assert main([*asked, "--out", f"{tmp_path}/y{Path(out).suffix}"]) == 0
    assert "rounded away" not in capsys.readouterr().err


def test_an_edit_of_which_nothing_is_left_is_not_exported(tmp_path: Path) -> None:
    wide = open_both(tmp_path)[0]
    rounded = {n: w.detach().bfloat16().float() for n, w in wide.weights.items() if "attn2.to_k" in n}
    edit = edit_with(wide, {name: value * (1 + 1e-5) for name, value in rounded.items()})
    with pytest.raises(ValueError, match=r"in bfloat16 nothing is left of the edit.*--dtype fp32 would have worked"):
        write_export(str(tmp_path / "base"), edit, tmp_path / "x", dtype="bf16", pictures=0)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("make", [build_dense, build_low_rank, mask])
def test_in_full_precision_nothing_is_rounded_away(make: Any, tmp_path: Path) -> None:
    model = tiny_model()
    edit = make(model, "attn2")
    assert measure_rounding(model, edit, 0.5).total < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_export(model, edit, tmp_path / "x.safetensors", format="comfy", pictures=0)
    assert is_same_change(model, edit, efface.import_edit(model, tmp_path / "x.safetensors"))
    assert all(tensor.dtype == torch.float32 for tensor in load_file(tmp_path / "x.safetensors").values())
