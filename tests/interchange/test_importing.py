"""Other tools' erasures come in as edits: their files, as their own code writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

import efface
from efface.api.exporting import write_export
from efface.cli.app import main
from efface.edits.edit import Edit
from efface.models.adapters import single_file
from efface.models.adapters.sd import StableDiffusion
from efface.models.base import Model
from lora_fixtures import build_dense, build_low_rank, is_same_change, mask
from opening_fixtures import edit_json
from tiny import tiny_model
from tiny_sdxl import tiny_sdxl

ARCHITECTURES: dict[str, Callable[[], Model]] = {"sd": tiny_model, "sdxl": tiny_sdxl}


def build_changed_unet(model: Model, part: str = "attn2") -> dict[str, torch.Tensor]:
    """All weights of a U-Net of which some were trained, by diffusers' names."""
    edit = build_dense(model, part)
    with edit.apply(model):
        return {name: tensor.detach().clone() for name, tensor in model.network.state_dict().items()}


@pytest.mark.parametrize("format", ["lora", "kohya", "comfy"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_is_exported_comes_back(kind: str, format, tmp_path: Path) -> None:
    model = ARCHITECTURES[kind]()
    edit = build_low_rank(model, "attn2.to_k", "resnets.0.conv1", "self_attn", "downsamplers")
    write_export(model, edit, tmp_path / "x.safetensors", format=format, pictures=0)
    back = efface.import_edit(model, tmp_path / "x.safetensors")
    assert is_same_change(model, edit, back)
    assert back.meta["request"] == edit.meta["request"] and back.meta["method"] == "ESD"
    assert {name.partition(":")[2] for name in back.values} == {"down", "up"}


@pytest.mark.parametrize("make", [build_dense, mask])
def test_exact_differences_come_back(make, tmp_path: Path) -> None:
    model = tiny_model()
    edit = make(model, "attn2", "norm")
    write_export(model, edit, tmp_path / "x.safetensors", format="comfy", pictures=0)
    assert is_same_change(model, edit, efface.import_edit(model, tmp_path / "x.safetensors"))


@pytest.mark.parametrize("prefix", ["", "unet."])
@pytest.mark.parametrize("layout", ["pt", "wrapped", "safetensors", "part"])
def test_weights_by_the_names_of_the_unet(prefix: str, layout: str, tmp_path: Path) -> None:
    """ESD and UCE save the U-Net's state_dict, whole or what they trained, as a pickle or as safetensors."""
    model = tiny_model()
    held = build_changed_unet(model)
    held = {name: tensor for name, tensor in held.items() if layout != "part" or "attn2" in name}
    held = {f"{prefix}{name}": tensor for name, tensor in held.items()}
    file = tmp_path / ("esd.safetensors" if layout in ("safetensors", "part") else "esd.pt")
    if file.suffix == ".pt":
        torch.save({"unet": held} if layout == "wrapped" else held, file)
    else:
        save_file(held, file)
    edit = efface.import_edit(model, file, "cat", method="esd", unpickle=True)
    wanted = build_dense(model, "attn2")
    assert sorted(edit.names) == sorted(wanted.names) and is_same_change(model, wanted, edit, 0)
    assert edit.meta["request"]["targets"] == ["cat"] and edit.meta["arguments"]["read_as"] == "weights"


def test_a_file_of_half_precision_changes_only_what_it_changes(tmp_path: Path) -> None:
    model = tiny_model()
    save_file({name: tensor.half() for name, tensor in build_changed_unet(model).items()}, tmp_path / "esd.safetensors")
    edit = efface.import_edit(model, tmp_path / "esd.safetensors", "cat")
    assert sorted(edit.names) == sorted(build_dense(model, "attn2").names)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_weights_in_the_original_layout(kind: str, tmp_path: Path) -> None:
    """ESD's first code saves CompVis names; schedules and other parts lie beside the denoiser's weights."""
    model = ARCHITECTURES[kind]()
    edit = build_dense(model, "attn2")
    with edit.apply(model):
        held: dict[str, torch.Tensor] = single_file.rename_to_original(model)  # type: ignore[arg-type]
        held = {name: tensor.detach().clone().contiguous() for name, tensor in held.items()}
    only = {name: tensor for name, tensor in held.items() if name.startswith("model.")} | {"betas": torch.ones(3)}
    torch.save({"state_dict": only}, tmp_path / "esd.pt")
    with pytest.warns(UserWarning, match=r"1 part of .*esd.pt is no weights .* first 'betas'"):
        back = efface.import_edit(model, tmp_path / "esd.pt", "cat", unpickle=True)
    assert is_same_change(model, edit, back, 0)
    save_file(held, tmp_path / "whole.safetensors")
    whole = efface.import_edit(model, tmp_path / "whole.safetensors", "cat")
    assert is_same_change(model, edit, whole, 0) and whole.meta["arguments"]["read_as"] == "single file"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_fine_tuned_folder_against_its_base(kind: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[kind]()
    edit = build_dense(model, "attn2", "self_attn")
    edit.export(model, tmp_path / "tuned")
    back = efface.import_edit(model, tmp_path / "tuned", "cat")
    assert sorted(back.names) == sorted(edit.names) and is_same_change(model, edit, back, 0)
    # The denoiser alone, as `unet.save_pretrained` writes it.
    alone = efface.import_edit(model, tmp_path / "tuned" / "unet", "cat")
    assert sorted(alone.names) == sorted(name for name in edit.names if name.startswith("unet."))


@pytest.mark.parametrize("safe", [True, False])
def test_a_denoiser_in_several_files_against_its_base(safe: bool, tmp_path: Path) -> None:
    """Large denoisers are published so, as FLUX.1's transformer in three files; one of them is a part of the change."""
    model = tiny_model()
    edit = build_dense(model, "attn2")
    with edit.apply(model):
        model.network.save_pretrained(tmp_path / "unet", max_shard_size="20KB", safe_serialization=safe)
    shards = sorted((tmp_path / "unet").glob("*-of-*"))
    assert len(shards) > 1
    back = efface.import_edit(model, tmp_path / "unet", "cat", unpickle=not safe)
    assert sorted(back.names) == sorted(edit.names) and is_same_change(model, edit, back, 0)
    with pytest.raises(ValueError, match=r"is one of several files of a model; .*unet, which holds all, would"):
        efface.import_edit(model, shards[0], "cat", unpickle=True)
    shards[-1].unlink()
    with pytest.raises(ValueError, match="is missing; fetch it again"):
        efface.import_edit(model, tmp_path / "unet", "cat", unpickle=not safe)


def test_of_several_variants_of_a_denoiser_the_plain_one_is_read(tmp_path: Path) -> None:
    model = tiny_model()
    edit = build_dense(model, "attn2")
    with edit.apply(model):
        model.network.save_pretrained(tmp_path / "unet")
        model.network.save_pretrained(tmp_path / "unet", variant="fp16")
    assert sorted(efface.import_edit(model, tmp_path / "unet", "cat").names) == sorted(edit.names)


@pytest.mark.parametrize(("alpha", "root"), [(4, False), (1, False), (4, True)])
def test_a_lora_that_peft_saved(alpha: int, root: bool, tmp_path: Path) -> None:
    model = tiny_model()
    prompt = model.encode(["a cat"])
    unet: Any = tiny_model().network
    wrapped = get_peft_model(
        unet, LoraConfig(r=2, lora_alpha=alpha, use_rslora=root, target_modules=["to_k", "to_v", "conv1"])
    )
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=rng))
    wrapped.save_pretrained(tmp_path / "peft")
    edit = efface.import_edit(model, tmp_path / "peft", "cat")
    x, t = torch.randn(1, 4, 8, 8, generator=rng), 500
    theirs = wrapped(x, t, encoder_hidden_states=prompt.tokens).sample
    with edit.apply(model):
        assert torch.allclose(model.predict(x, t, prompt)[0], theirs, atol=1e-4)


@pytest.mark.parametrize(
    "settings", [{}, {"alpha_pattern": {"down_blocks.0.attentions.0.proj_in": 6}}, {"use_rslora": True}]
)
def test_alphas_that_diffusers_writes_into_the_header(settings: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model()
    edit = build_low_rank(model, "0.proj_in", "attn2.to_k")
    write_export(model, edit, tmp_path / "x.safetensors", format="lora", pictures=0)
    modules = [name.removeprefix("unet.").removesuffix(".weight") for name in edit.names]
    known = {"r": 2, "lora_alpha": 4, "target_modules": modules, **settings}
    header = {f"unet.{key}": value for key, value in known.items()}
    save_file(
        load_file(tmp_path / "x.safetensors"),
        tmp_path / "y.safetensors",
        metadata={"format": "pt", "lora_adapter_metadata": json.dumps(header)},
    )
    pipeline = tiny_model().pipeline
    pipeline.load_lora_weights(str(tmp_path), weight_name="y.safetensors")
    pipeline.fuse_lora(components=["unet"])
    pipeline.unload_lora_weights()
    fused = StableDiffusion(pipeline, "fused").weights
    with efface.import_edit(model, tmp_path / "y.safetensors", "cat").apply(model):
        assert all(torch.allclose(fused[name], model.weights[name], atol=1e-6) for name in edit.names)


def test_old_names_of_attention_processors(tmp_path: Path) -> None:
    model = tiny_model()
    edit = build_low_rank(model, "attn2.to_k", "attn2.to_out")
    held: dict[str, torch.Tensor] = {}
    for key, tensor in edit.values.items():
        name, _, part = key.partition(":")
        layer, _, leaf = name.removesuffix(".weight").replace(".to_out.0", ".to_out").rpartition(".")
        held[f"{layer}.processor.{leaf}_lora.{part}.weight"] = tensor
    torch.save(held, tmp_path / "pytorch_attn_procs.bin")
    assert is_same_change(
        model, edit, efface.import_edit(model, tmp_path / "pytorch_attn_procs.bin", "cat", unpickle=True)
    )


def test_differences_of_norms_by_the_names_of_lycoris(tmp_path: Path) -> None:
    model = tiny_model()
    edit = build_dense(model, "transformer_blocks.0.norm2")
    held: dict[str, torch.Tensor] = {}
    for name in edit.names:
        layer, _, leaf = name.removeprefix("unet.").rpartition(".")
        part = "w_norm" if leaf == "weight" else "b_norm"
        held[f"lora_unet_{layer.replace('.', '_')}.{part}"] = edit.values[name] - model.weights[name].detach()
    assert any(key.endswith("b_norm") for key in held)
    save_file(held, tmp_path / "norms.safetensors")
    assert is_same_change(model, edit, efface.import_edit(model, tmp_path / "norms.safetensors", "cat"))


def test_another_schedule_is_left_aside_with_a_warning(tmp_path: Path) -> None:
    model = tiny_model()
    build_dense(model, "attn2").export(model, tmp_path / "tuned")
    edit_json(tmp_path / "tuned" / "scheduler" / "scheduler_config.json", beta_end=0.02)
    with pytest.warns(UserWarning, match="no weights of the denoiser or a text encoder, first 'scheduler'"):
        efface.import_edit(model, tmp_path / "tuned", "cat")


def test_an_exported_folder_says_what_it_erases(tmp_path: Path) -> None:
    model = tiny_model()
    edit = build_dense(model, "attn2")
    write_export(model, edit, tmp_path / "x", format="diffusers", pictures=0)
    back = efface.import_edit(model, tmp_path / "x")
    assert back.meta["request"] == edit.meta["request"] and back.meta["method"] == edit.meta["method"]
    assert is_same_change(model, edit, back, 0)


def test_an_exported_file_is_not_recorded_as_another_erasure(tmp_path: Path) -> None:
    model = tiny_model()
    write_export(model, build_dense(model, "attn2"), tmp_path / "x", format="diffusers", pictures=0)
    assert efface.import_edit(model, tmp_path / "x", "Cat", method="esd").meta["request"]["targets"] == ["Cat"]
    with pytest.raises(ValueError, match="exported from an edit that erases cat, not dog; leave out --target"):
        efface.import_edit(model, tmp_path / "x", "dog")
    with pytest.raises(ValueError, match="exported from an edit by ESD, not eap; leave out --method"):
        efface.import_edit(model, tmp_path / "x", method="eap")


def test_the_command_writes_an_edit_that_is_used_as_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model().save_pretrained(tmp_path / "base")
    model = efface.load(str(tmp_path / "base"), "cpu")
    edit = build_low_rank(model, "attn2")
    write_export(model, edit, tmp_path / "x.safetensors", format="kohya", pictures=0)
    asked = ["import", str(tmp_path / "x.safetensors"), "--model", str(tmp_path / "base")]
    out = tmp_path / "back.safetensors"
    assert main([*asked, "--out", str(out), "--target", "cat", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["weights"] == len(edit.names) and told["read_as"] == "LoRA" and len(told["sha256"]) == 64
    assert is_same_change(model, edit, Edit.load(out))
    assert main([*asked, "--out", str(out)]) == 2 and "add --overwrite" in capsys.readouterr().err
    assert main([*asked, "--out", str(tmp_path / "back.pt")]) == 2 and "end in .safetensors" in capsys.readouterr().err
