"""Each architecture × format: what diffusers' own loaders make of an export, by weights and by pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file

import efface
from efface.api.exporting import write_export
from efface.interchange.formats import LORA_FORMATS
from efface.interchange.lora import package
from efface.interchange.names import list_layers, name_all, name_stems
from efface.models.base import Model
from lora_fixtures import build_dense, build_low_rank, edit_with, mask
from tiny import tiny_model
from tiny_pixart import tiny_pixart
from tiny_sdxl import tiny_sdxl

ARCHITECTURES: dict[str, Callable[[], Model]] = {"sd": tiny_model, "sdxl": tiny_sdxl}
PIPELINES = {"sd": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
LAYERS = ("attn2.to_k", "resnets.0.conv1", "sampler", "1.proj_in", "0.self_attn", "0.time_emb_proj", "conv_in.")
"""Attention, convolutions of both kinds, and layers of the text encoders."""


@pytest.mark.parametrize("format", LORA_FORMATS)
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_low_rank_edit_is_exact_in_every_lora_format(kind: str, format, tmp_path: Path) -> None:
    model = ARCHITECTURES[kind]()
    edit = build_low_rank(model, *LAYERS)
    made = write_export(model, edit, tmp_path / "x.safetensors", format=format)
    about = json.loads((tmp_path / "x.json").read_text())
    assert about == made.about and about["target"] == ["cat"] and about["method"] == "ESD"
    assert about["matched"] == len(edit.names) and about["rank"] == about["lowest_rank"] == 2
    assert about["residual"] < 1e-6 and about["left_out"] == [] and about["base"] == edit.meta["base"]
    assert "load_lora_weights" in about["reader"] and about["gap"]["largest"] <= 2 < about["gap"]["edit"]
    with safe_open(tmp_path / "x.safetensors", "pt") as opened:
        assert json.loads(opened.metadata()["efface"])["edit"]["request"]["targets"] == ["cat"]
    assert model.fingerprint() == ARCHITECTURES[kind]().fingerprint()
    assert not any("lora" in name for name, _ in model.network.named_parameters())


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_diffusers_fuses_what_the_edit_adds_at_every_strength(kind: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[kind]()
    edit = build_low_rank(model, "attn2", "self_attn")
    file = write_export(model, edit, tmp_path / "x.safetensors", format="kohya", pictures=0).path
    model.save_pretrained(tmp_path / "base")
    theirs = PIPELINES[kind].from_pretrained(tmp_path / "base")
    theirs.load_lora_weights(str(tmp_path), weight_name=file.name)
    theirs.fuse_lora(
        components=[p for p in ("unet", "text_encoder", "text_encoder_2") if hasattr(theirs, p)], lora_scale=0.5
    )
    theirs.unload_lora_weights()
    fused = efface.load(theirs).weights
    with edit.apply(model, strength=0.5):
        for name in edit.names:
            assert torch.allclose(fused[name], model.weights[name], atol=1e-6)


@pytest.mark.parametrize("format", ["lora", "kohya"])
@pytest.mark.parametrize("make", [build_dense, mask])
def test_a_dense_edit_is_the_best_product_of_its_rank(make, format, tmp_path: Path) -> None:
    model = tiny_model()
    edit = make(model, "attn2")
    made = write_export(model, edit, tmp_path / "x.safetensors", format=format, rank=2, pictures=0)
    whole, lost = 0.0, 0.0
    with edit.apply(model):
        new = {name: weight.detach().clone() for name, weight in model.weights.items()}
    worst = 0.0
    for name in edit.names:
        delta = (new[name] - model.weights[name]).detach().double()
        values = torch.linalg.svdvals(delta) if delta.dim() == 2 else delta.new_zeros(0)
        left = float(values[2:].square().sum()) if delta.dim() == 2 else float(delta.square().sum())
        whole, lost = whole + float(delta.square().sum()), lost + left
        worst = max(worst, (left / float(delta.square().sum())) ** 0.5) if delta.dim() == 2 else worst
    assert made.about["residual"] == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    assert made.about["worst_residual"] == pytest.approx(worst, rel=1e-4)
    assert made.about["rank"] == 2
    assert len(made.about["left_out"]) == sum(name.endswith("bias") for name in edit.names)


def test_the_energy_that_is_asked_for_is_kept(tmp_path: Path) -> None:
    model = tiny_model()
    edit = mask(model, "attn2")
    for energy in (0.5, 0.9, 1.0):
        made = write_export(model, edit, tmp_path / f"{energy}.safetensors", format="lora", energy=energy, pictures=0)
        assert made.about["worst_residual"] ** 2 <= 1 - energy + 1e-9
    assert made.about["residual"] < 1e-5


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_layers_of_different_ranks_are_scaled_rightly(kind: str, tmp_path: Path) -> None:
    """diffusers drops the alphas of a kohya file's attention layers where they are not all the same."""
    model = ARCHITECTURES[kind]()
    edits = [
        build_low_rank(model, "attn2.to_k", rank=2),
        build_low_rank(model, "attn2.to_v", "resnets.0.conv1", rank=3),
    ]
    edit = edit_with(model, {key: value for each in edits for key, value in each.values.items()})
    made = write_export(model, edit, tmp_path / "x.safetensors", format="kohya", pictures=0)
    assert made.about["matched"] == len(edit.names) and (made.about["lowest_rank"], made.about["rank"]) == (2, 3)
    alphas = {float(tensor) for key, tensor in load_file(made.path).items() if key.endswith(".alpha")}
    assert alphas == {3.0}
    back = efface.import_edit(model, made.path)
    assert all(torch.equal(back.values[key], value) for key, value in edit.values.items())


@pytest.mark.parametrize("make", [build_dense, mask])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_comfy_holds_dense_changes_exactly(kind: str, make, tmp_path: Path) -> None:
    model = ARCHITECTURES[kind]()
    edit = make(model, "attn2", "norm", "token_embedding")
    made = write_export(model, edit, tmp_path / "x.safetensors", format="comfy")
    assert made.about["exact"] == len(edit.names) == made.about["matched"]
    assert made.about["residual"] < 1e-6 and made.about["gap"]["largest"] <= 1
    held = load_file(tmp_path / "x.safetensors")
    assert {key.rpartition(".")[2] for key in held} <= {"diff", "diff_b"}
    assert sum(key.endswith(".diff_b") for key in held) == sum(name.endswith(".bias") for name in edit.names)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_file_of_half_precision_says_what_it_loses(dtype, tmp_path: Path) -> None:
    model = tiny_model()
    made = write_export(model, build_low_rank(model, "attn2"), tmp_path / "x.safetensors", format="lora", dtype=dtype)
    assert 1e-5 < made.about["residual"] < 1e-2
    assert {str(t.dtype) for t in load_file(made.path).values()} == {
        "torch.float16" if dtype == "fp16" else "torch.bfloat16"
    }


def test_a_strength_is_part_of_the_file(tmp_path: Path) -> None:
    model = tiny_model()
    edit = build_low_rank(model, "attn2")
    half = package(model, edit, "lora", strength=0.5)
    for name, (down, up) in package(model, edit, "lora").factors.items():
        assert torch.allclose(half.factors[name][1] @ half.factors[name][0], 0.5 * up @ down)
    made = write_export(model, edit, tmp_path / "x.safetensors", format="lora", strength=0.5)
    assert made.about["strength_in_file"] == 0.5 and made.about["gap"]["largest"] <= 2


def test_every_layer_of_a_format_has_one_name() -> None:
    for make in (*ARCHITECTURES.values(), tiny_pixart):
        model = make()
        spelled = name_all(model)
        for format in LORA_FORMATS if model.architecture != "pixart" else ("lora",):
            stems = name_stems(model, format)
            layers = [layer for stem in stems.values() for layer in stem.layers]
            assert len(layers) == len(set(layers)) == len(list_layers(model))
            assert all(spelled[key] == stem for key, stem in stems.items())
