"""The parts of a folder that are never called here, such as the safety checker, stay in what is exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor

import efface
from lora_fixtures import build_dense
from opening_fixtures import POINTER
from tiny import tiny_pipeline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny model with a tiny safety checker and its feature extractor, as diffusers writes them."""
    torch.manual_seed(3)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**small, "vocab_size": 8},
        vision_config={**small, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    parts = dict(tiny_pipeline().components)
    parts |= {
        "safety_checker": StableDiffusionSafetyChecker(config),
        "feature_extractor": CLIPImageProcessor(size=16, crop_size=16),
    }
    StableDiffusionPipeline(**parts).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_the_safety_checker_stays_in_an_exported_folder(folder: Path, tmp_path: Path) -> None:
    model = efface.load(str(folder), "cpu")
    efface.export(model, build_dense(model, "attn2"), tmp_path / "out", pictures=0)
    theirs, ours = (
        StableDiffusionPipeline.from_pretrained(each, local_files_only=True) for each in (folder, tmp_path / "out")
    )
    assert ours.config["requires_safety_checker"] and type(ours.feature_extractor) is type(theirs.feature_extractor)
    held = theirs.safety_checker.state_dict()
    assert held and all(torch.equal(held[name], own) for name, own in ours.safety_checker.state_dict().items())


def test_a_model_in_memory_keeps_its_own(folder: Path, tmp_path: Path) -> None:
    model = efface.load(StableDiffusionPipeline.from_pretrained(folder, local_files_only=True))
    efface.export(model, build_dense(model, "attn2"), tmp_path / "out", pictures=0)
    assert (tmp_path / "out" / "safety_checker" / "config.json").is_file()


@pytest.mark.parametrize("damage", ["missing", "pointer"])
def test_a_safety_checker_that_was_not_fetched_is_told(damage: str, folder: Path, tmp_path: Path) -> None:
    weights = folder / "safety_checker" / "model.safetensors"
    if damage == "pointer":
        weights.write_text(POINTER)
    else:
        for file in weights.parent.iterdir():
            file.unlink()
        weights.parent.rmdir()
    model = efface.load(str(folder), "cpu")
    with pytest.warns(UserWarning, match=r"names a safety_checker, whose files were not fetched"):
        efface.export(model, build_dense(model, "attn2"), tmp_path / "out", pictures=0)
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert index["safety_checker"] == [None, None] and index["feature_extractor"][1].startswith("CLIPImageProcessor")
    assert efface.load(str(tmp_path / "out"), "cpu").pipeline.safety_checker is None
