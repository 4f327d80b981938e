"""Opening a model from files: every part is there and whole, or one sentence says which is not and what helps."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import efface
from efface.cli.app import main
from opening_fixtures import POINTER, TEXT, UNET, cut, edit_json
from tiny import tiny_pipeline
from tiny_ddpm import tiny_ddpm
from tiny_sdxl import tiny_sdxl_pipeline


def drop_piece(file: Path, piece: str) -> None:
    held = load_file(file)
    kept = {name: tensor for name, tensor in held.items() if piece not in name}
    assert 0 < len(kept) < len(held)
    save_file(kept, file, {"format": "pt"})


def with_nan(file: Path) -> None:
    held = load_file(file)
    next(iter(held.values())).view(-1)[0] = float("nan")
    save_file(held, file, {"format": "pt"})


def make_index(part: Path, shard: str) -> None:
    """A list of shards in the place of the weights."""
    (part / "model.safetensors").unlink()
    (part / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": shard}}))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "pointer in the text encoder": (lambda f: (f / TEXT).write_text(POINTER), "text_encoder.*git-lfs pointer"),
    "pointer in the unet": (lambda f: (f / UNET).write_text(POINTER), "unet.*git-lfs pointer.*git lfs pull"),
    "pointer in the tokenizer": (
        lambda f: (f / "tokenizer/tokenizer.json").write_text(POINTER),
        "tokenizer.json is a git-lfs pointer",
    ),
    "unet cut short": (lambda f: cut(f / UNET), "unet.*cut short.*fetch it again"),
    "text encoder cut short": (lambda f: cut(f / TEXT), "text_encoder.*cut short"),
    "autoencoder's folder": (lambda f: shutil.rmtree(f / "vae"), "vae is missing: .*model_index.json names this part"),
    "unet's weights": (lambda f: (f / UNET).unlink(), "unet holds no weights"),
    "configuration": (lambda f: (f / "unet/config.json").unlink(), "unet/config.json is missing"),
    "an export's record": (lambda f: (f / "efface.json").write_text("[]"), "efface.json holds a list; a JSON object"),
    "an export's record cut short": (lambda f: (f / "efface.json").write_text("{"), "efface.json is no JSON, or cut"),
    "configuration cut short": (lambda f: cut(f / "vae/config.json"), "vae/config.json is no JSON, or cut short"),
    "tokenizer's folder": (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer is missing"),
    "tokenizer's files": (
        lambda f: [file.unlink() for file in (f / "tokenizer").iterdir()],
        "tokenizer holds no tokenizer: none of tokenizer.json",
    ),
    "tokenizer's settings": (
        lambda f: (f / "tokenizer/tokenizer_config.json").unlink(),
        "tokenizer_config.json is missing",
    ),
    "prompts too long": (
        lambda f: edit_json(f / "tokenizer/tokenizer_config.json", model_max_length=77),
        "gives prompts 77 tokens, and the text_encoder has room for 8; set model_max_length",
    ),
    "index is a list": (lambda f: (f / "model_index.json").write_text("[]"), "holds a list; a JSON object would"),
    "index cut short": (lambda f: cut(f / "model_index.json"), "model_index.json is no JSON"),
    "code of its own": (
        lambda f: edit_json(f / "model_index.json", unet=["my_unet", "MyUNet"]),
        "code that comes with a model is not run",
    ),
    "class of any length": (
        lambda f: edit_json(f / "model_index.json", unet=["diffusers" + "[" * 9000, "UNet2DConditionModel"]),
        r"says that unet is .{200,700}; a class of diffusers or transformers would have worked",
    ),
    "part of any length": (
        lambda f: edit_json(f / "model_index.json", **{"unet" * 900: ["diffusers", "UNet2DConditionModel"]}),
        "names a part 'unet.{100,700}; a name of letters, digits and underscores",
    ),
    "lacking tensors": (lambda f: drop_piece(f / UNET, "mid_block"), r"unet.* lacks \d+ tensors .*mid_block"),
    "lacking tensors of the text encoder": (
        lambda f: drop_piece(f / TEXT, "self_attn.q_proj"),
        r"text_encoder.* lacks \d+ tensors .*q_proj",
    ),
    "lacking tensors of the autoencoder": (
        lambda f: drop_piece(f / "vae" / Path(UNET).name, "decoder.mid"),
        "vae.*lacks",
    ),
    "other shapes": (
        lambda f: edit_json(f / "unet/config.json", block_out_channels=[8, 12]),
        "unet.*can't be opened: .*shape",
    ),
    "token table": (
        lambda f: edit_json(f / "text_encoder/config.json", vocab_size=20),
        "text_encoder.*can't be opened",
    ),
    "NaN in the unet": (lambda f: with_nan(f / UNET), "unet of .* has infinite or NaN weights, in "),
    "NaN in the autoencoder": (lambda f: with_nan(f / "vae" / Path(UNET).name), "vae of .* infinite or NaN weights"),
    "NaN in the text encoder": (lambda f: with_nan(f / TEXT), "text_encoder of .* infinite or NaN weights"),
    "endless schedule": (
        lambda f: edit_json(f / "scheduler/scheduler_config.json", num_train_timesteps=10**9),
        "num_train_timesteps is 1000000000; a whole number up to",
    ),
    "betas of very many digits": (
        lambda f: edit_json(f / "scheduler/scheduler_config.json", beta_end=10**400),
        "beta_end is 10+; a number between 0 and 1",
    ),
    "a shard that can be no file": (
        lambda f: make_index(f / "text_encoder", "[" * 100_000),
        "index.json lists no shards; fetch it again",
    ),
    "negative betas": (
        lambda f: edit_json(f / "scheduler/scheduler_config.json", beta_start=-1.0),
        "beta_start is -1.0; a number between 0 and 1",
    ),
    "not square": (
        lambda f: edit_json(f / "unet/config.json", sample_size=[8, 12]),
        r"draws at sample_size \[8, 12\]; one number, or two that are equal",
    ),
    "huge pictures": (lambda f: edit_json(f / "unet/config.json", sample_size=10**9), "at most 8192 pixels a side"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_in_one_sentence(folder: Path, damage: str) -> None:
    harm, message = DAMAGES[damage]
    harm(folder)
    with pytest.raises(ValueError, match=message) as caught:
        efface.load(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_the_command_line_says_it_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / TEXT).write_text(POINTER)
    assert main(["draw", "--model", str(folder), "--prompt", "a cat", "--out", str(folder / "out")]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: ") and "git-lfs pointer" in told and told.count("\n") == 0
    assert not (folder / "out").exists()


def test_parts_that_are_never_used_may_be_missing_or_foreign(folder: Path) -> None:
    plain = efface.load(str(folder), device="cpu")
    edit_json(
        folder / "model_index.json",
        feature_extractor=["transformers", "CLIPImageProcessor"],
        image_encoder=["transformers", "CLIPVisionModelWithProjection"],
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        requires_safety_checker=True,
    )
    opened = efface.load(str(folder), device="cpu")
    assert opened.pipeline.feature_extractor is None and opened.pipeline.safety_checker is None
    assert opened.fingerprint() == plain.fingerprint()


def rename_variant(folder: Path, variant: str, parts: tuple[str, ...]) -> None:
    for part in parts:
        for file in (folder / part).glob("*.safetensors"):
            file.rename(file.with_name(f"{file.stem}.{variant}.safetensors"))


def test_the_only_variant_is_opened_part_by_part(folder: Path) -> None:
    plain = efface.load(str(folder), device="cpu").fingerprint()
    rename_variant(folder, "fp16", ("unet", "text_encoder"))
    for variant in ("", "fp16"):
        assert efface.load(str(folder), device="cpu", variant=variant).fingerprint() == plain
    with pytest.raises(ValueError, match=r"no part of .* has the variant 'bf16'; there is fp16: omit --variant"):
        efface.load(str(folder), device="cpu", variant="bf16")


def test_of_several_variants_the_one_asked_for_is_opened(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = load_file(folder / UNET)
    plain = efface.load(str(folder), device="cpu").fingerprint()
    other = {name: 2 * tensor for name, tensor in held.items()}
    save_file(other, folder / "unet/diffusion_pytorch_model.ema.safetensors", {"format": "pt"})
    assert efface.load(str(folder), device="cpu").fingerprint() == plain
    doubled = efface.load(str(folder), device="cpu", variant="ema")
    assert torch.equal(doubled.weights["unet.conv_in.weight"], other["conv_in.weight"])
    rename_variant(folder, "fp16", ("unet",))
    (folder / "unet/diffusion_pytorch_model.ema.fp16.safetensors").rename(
        folder / "unet/diffusion_pytorch_model.ema.safetensors"
    )
    base = ["draw", "--model", str(folder), "--prompt", "cat", "--out", str(folder / "out"), "--device", "cpu"]
    assert main(base) == 2
    assert "holds weights of the variants ema, fp16 alone; choose one by --variant" in capsys.readouterr().err
    assert main([*base, "--steps", "1", "--variant", "ema"]) == 0


def test_shards_are_opened_and_a_missing_one_is_named(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "whole")
    tiny_pipeline().save_pretrained(tmp_path / "cut", max_shard_size="40KB")
    shards = sorted((tmp_path / "cut/unet").glob("*-of-*"))
    assert len(shards) > 1
    fingerprints = [efface.load(str(tmp_path / name), device="cpu").fingerprint() for name in ("whole", "cut")]
    assert fingerprints[0] == fingerprints[1]
    shards[1].unlink()
    with pytest.raises(ValueError, match=rf"{shards[1].name} is missing"):
        efface.load(str(tmp_path / "cut"), device="cpu")


def test_other_files_and_paths_that_are_not_there(tmp_path, monkeypatch, folder) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"no model 'plian/x': .* the hub can't be asked \(HF_HUB_OFFLINE is set\)"):
        efface.load("plian/x", device="cpu")
    with pytest.raises(ValueError, match=r"model_index.json is a file that is no model; .*name its folder, .*sd"):
        efface.load(str(folder / "model_index.json"), device="cpu")
    with pytest.raises(ValueError, match=r"unet is one part of a pipeline, a UNet2DConditionModel; name the folder"):
        efface.load(str(folder / "unet"), device="cpu")
    with pytest.raises(ValueError, match=r"only a folder or a hub id can have a variant"):
        efface.load("glyphs", device="cpu", variant="fp16")
    with pytest.raises(ValueError, match="this pipeline is in memory already"):
        efface.load(tiny_pipeline(), variant="fp16")


def test_a_model_of_classes_and_xl_are_looked_at_too(tmp_path: Path) -> None:
    tiny_ddpm().save_pretrained(tmp_path / "ddpm")
    cut(tmp_path / "ddpm" / UNET)
    with pytest.raises(ValueError, match=r"unet.*cut short"):
        efface.load(str(tmp_path / "ddpm"), device="cpu")
    tiny_sdxl_pipeline().save_pretrained(tmp_path / "xl")
    shutil.rmtree(tmp_path / "xl/tokenizer_2")
    with pytest.raises(ValueError, match="tokenizer_2 is missing"):
        efface.load(str(tmp_path / "xl"), device="cpu")


def test_opening_says_nothing_of_modules_that_need_not_stay_in_fp32(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning of diffusers with an empty list; other warnings of its are still printed."""
    logging.getLogger("diffusers").addHandler(caplog.handler)  # it does not propagate
    try:
        efface.load(saved)
        logging.getLogger("diffusers.models.modeling_utils").warning("another")
    finally:
        logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert "should be kept in float32" not in caplog.text and "another" in caplog.text
