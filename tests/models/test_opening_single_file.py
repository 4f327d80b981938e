"""A single file is compared with the configuration that it is opened with, by what it says of itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import efface
from efface.models.adapters import single_file
from tiny import tiny_model
from tiny_sdxl import tiny_sdxl

KEY = torch.zeros(0)
EMA = {"model_ema.diffusion_modelout2bias": torch.zeros(4)}
V, ZERO = {"prediction_type": "v_prediction"}, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder xl and the same model's weights in one file."""
    folder = tmp_path_factory.mktemp("single")
    model = tiny_sdxl()
    model.save_pretrained(folder / "xl")
    single_file.save(model, folder / "xl.safetensors", {})
    return folder


def open_file(saved: Path, to: Path, more: dict[str, Any], metadata: dict[str, str], settings: dict[str, Any]) -> Any:
    shutil.copytree(saved / "xl", to / "xl", ignore=shutil.ignore_patterns("*.safetensors"))
    config = to / "xl/scheduler/scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **settings}))
    save_file({**load_file(saved / "xl.safetensors"), **more}, to / "f.safetensors", metadata)
    return efface.load(f"{to}/f.safetensors@{to}/xl", device="cpu")


@pytest.mark.parametrize(
    ("more", "metadata", "settings", "message"),
    [
        ({"v_pred": KEY}, {}, {}, r'predicts v_prediction, and .*xl says epsilon.*"prediction_type": "v_prediction"'),
        ({"v_pred": KEY, "ztsnr": KEY}, {}, V, r'ztsnr.* "rescale_betas_zero_snr": true'),
        ({}, {"modelspec.prediction_type": "v"}, {}, "predicts v_prediction, and .* says epsilon"),
        ({}, {"modelspec.prediction_type": "epsilon"}, V, "predicts epsilon, and .* says v_prediction"),
        ({}, {"ss_zero_terminal_snr": "True"}, V, "ends in pure noise"),
        ({"edm_vpred.sigma_max": KEY}, {}, V, "EDM's formulation"),
        ({}, {}, {"num_train_timesteps": 10**9}, "num_train_timesteps is 1000000000"),
    ],
)
def test_a_file_that_contradicts_its_configuration_is_refused(saved, tmp_path, more, metadata, settings, message):
    with pytest.raises(ValueError, match=message):
        open_file(saved, tmp_path, more, metadata, settings)


@pytest.mark.parametrize(
    ("more", "metadata", "settings", "space"),
    [
        ({"v_pred": KEY, "ztsnr": KEY}, {}, {**V, **ZERO}, "v"),
        ({}, {"modelspec.prediction_type": "v", "modelspec.resolution": "16x16"}, V, "v"),
        ({}, {"modelspec.prediction_type": "epsilon"}, {}, "eps"),
    ],
)
def test_a_file_that_agrees_is_opened(saved, tmp_path, more, metadata, settings, space):
    assert open_file(saved, tmp_path, more, metadata, settings).space == space


@pytest.mark.parametrize(
    ("more", "metadata", "message"),
    [
        (EMA, {}, "holds averaged weights .*the plain ones are opened"),
        ({}, {"modelspec.resolution": "1024x1024"}, "says that it draws at 1024x1024, and .* at 16x16"),
    ],
)
def test_what_may_surprise_is_said(saved, tmp_path, more, metadata, message):
    with pytest.warns(UserWarning, match=message):
        open_file(saved, tmp_path, more, metadata, {})


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"lora_unet_mid_block.lora_down.weight": KEY}, r"is a LoRA, not a model: .*pipe\.load_lora_weights"),
        ({"unet.mid_block.to_q.lora_A.weight": KEY}, "is a LoRA, not a model"),
        (EMA, "holds averaged weights alone"),
        ({"down_blocks.0.resnets.0.norm1.weight": KEY}, "is one part of a diffusers folder"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, held, message):
    save_file(held, tmp_path / "f.safetensors")
    with pytest.raises(ValueError, match=message):
        efface.load(str(tmp_path / "f.safetensors"), device="cpu")


def test_a_pointer_and_a_nan_in_a_single_file(saved, tmp_path):
    (tmp_path / "p.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=r"p\.safetensors is a git-lfs pointer"):
        efface.load(f"{tmp_path}/p.safetensors@{saved}/xl", device="cpu")
    name = "model.diffusion_model.out.2.bias"
    broken = {name: torch.full_like(load_file(saved / "xl.safetensors")[name], float("nan"))}
    with pytest.raises(ValueError, match=r"unet of .* infinite or NaN weights, in conv_out\.bias"):
        open_file(saved, tmp_path, broken, {}, {})


def test_stable_diffusion_is_compared_too(tmp_path):
    tiny_model().save_pretrained(tmp_path / "sd")
    single_file.save(tiny_model(), tmp_path / "sd.safetensors", {})
    save_file({**load_file(tmp_path / "sd.safetensors"), "v_pred": KEY}, tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match="predicts v_prediction"):
        efface.load(f"{tmp_path}/v.safetensors@{tmp_path}/sd", device="cpu")
