"""Single-file checkpoints: every tensor is read back by diffusers and by us, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

import efface
from efface.cli.app import main
from efface.edits.edit import Edit
from efface.models.adapters import single_file
from efface.models.adapters.sd import StableDiffusion
from efface.models.adapters.sdxl import StableDiffusionXL
from efface.models.base import Model
from judging_fixtures import edit_of
from tiny import tiny_pipeline
from tiny_ddpm import tiny_ddpm
from tiny_sdxl import build_text_config, tiny_sdxl, tiny_sdxl_pipeline

PROMPTS, SEEDS = ["a cat", "red car"], [5, 6]
VERSIONS = ("1.x", "2.x", "XL")
CROSS, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
FOUR = {
    "down_block_types": (CROSS, CROSS, CROSS, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", CROSS_UP, CROSS_UP, CROSS_UP),
    "layers_per_block": 2,
}


def build_four_levels(version: str) -> StableDiffusion:
    """A tiny Stable Diffusion with the levels, layers and attention of the real one; 2.x with OpenCLIP's encoder."""
    pipeline = tiny_pipeline()
    torch.manual_seed(3)
    two = version == "2.x"
    encoder = CLIPTextModel(build_text_config(16, num_hidden_layers=2, hidden_act="gelu" if two else "quick_gelu"))
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=(1, 2, 4, 4) if two else 2,
        use_linear_projection=two,
        **FOUR,
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        norm_num_groups=4,
        layers_per_block=2,
        sample_size=128,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    pipeline.register_modules(text_encoder=encoder, unet=unet, vae=vae)
    return StableDiffusion(pipeline, version)


def build_model(version: str) -> Model:
    """A tiny model no two of whose tensors are alike, as fresh norms and biases are."""
    model = tiny_sdxl() if version == "XL" else build_four_levels(version)
    with torch.no_grad():
        for tensor in list_parts(model.pipeline).values():
            tensor.add_(0.1 * torch.randn_like(tensor))
    return model


def list_parts(pipeline) -> dict[str, torch.Tensor]:
    """Every tensor of the pipeline."""
    found = {part: module for part, module in pipeline.components.items() if isinstance(module, torch.nn.Module)}
    return {f"{part}.{n}": t for part, module in found.items() for n, t in module.state_dict().items()}


def is_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(
        tensor.dtype == two[name].dtype and torch.equal(tensor, two[name]) for name, tensor in one.items()
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_diffusers_reads_back_every_tensor(version, dtype, tmp_path):
    model = efface.load(build_model(version).pipeline, dtype=dtype)
    model.save_pretrained(tmp_path / "folder")
    file = single_file.save(model, tmp_path / "x.safetensors", {"model": "tiny"})
    held = load_file(file)
    assert {tensor.dtype for tensor in held.values()} == {model.dtype}
    assert any(name.startswith("cond_stage_model.model.transformer.resblocks.1.") for name in held) == (
        version == "2.x"
    )
    kind = StableDiffusionXLPipeline if version == "XL" else StableDiffusionPipeline
    theirs = kind.from_single_file(str(file), config=str(tmp_path / "folder"), dtype=model.dtype)
    assert is_same(list_parts(theirs), list_parts(model.pipeline))
    with safe_open(file, framework="pt") as opened:
        assert json.loads(opened.metadata()["efface"]) == {"model": "tiny", "kind": "single file"}


@pytest.mark.parametrize("version", VERSIONS)
def test_we_open_what_we_wrote(version, tmp_path):
    model = build_model(version)
    model.save_pretrained(tmp_path / "folder")
    bare = tmp_path / "bare"
    for file in (tmp_path / "folder").rglob("*"):
        if file.is_file() and file.suffix != ".safetensors":
            (bare / file.relative_to(tmp_path / "folder")).parent.mkdir(parents=True, exist_ok=True)
            (bare / file.relative_to(tmp_path / "folder")).write_bytes(file.read_bytes())
    file = single_file.save(model, tmp_path / "x.safetensors", {})
    opened = efface.load(f"{file}@{bare}", device="cpu")
    assert type(opened) is type(model)
    assert opened.name == f"{file}@{bare}"
    assert opened.fingerprint() == model.fingerprint()
    assert opened.hash_decoder() == model.hash_decoder()
    ours = opened.images(PROMPTS, SEEDS, steps=2, guidance=2.0)
    assert torch.equal(ours, model.images(PROMPTS, SEEDS, steps=2, guidance=2.0))


@pytest.mark.parametrize("pipeline", [tiny_pipeline, tiny_sdxl_pipeline])
@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ({}, set()),
        ({"prediction_type": "v_prediction"}, {"v_pred"}),
        ({"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, {"v_pred", "ztsnr"}),
    ],
)
def test_a_file_says_what_its_network_predicts(pipeline, settings, keys, tmp_path):
    """Interfaces take a file without these keys for one that predicts noise, and would draw nothing with it."""
    made = pipeline()
    given = {"timestep_spacing": "trailing", **settings}
    made.register_modules(scheduler=DDIMScheduler.from_config(made.scheduler.config, **given))
    model = efface.load(made)
    file = efface.export(model, edit_of(model, tmp_path / "edit.safetensors"), tmp_path / "x.safetensors", pictures=0)
    assert {name for name in load_file(file) if "." not in name} == keys
    pipeline().save_pretrained(tmp_path / "eps")
    if keys:
        with pytest.raises(ValueError, match=r"says that it predicts v_prediction, and .* says epsilon"):
            efface.load(f"{file}@{tmp_path / 'eps'}", device="cpu")


@pytest.mark.parametrize("pipeline", [tiny_pipeline, tiny_sdxl_pipeline])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_exports_are_what_their_readers_open(pipeline, dtype, tmp_path, capsys):
    pipeline().save_pretrained(tmp_path / "base")
    model = efface.load(str(tmp_path / "base"), device="cpu", dtype=dtype)
    edit = Edit.load(edit_of(model, tmp_path / "edit.safetensors"))
    base = ["export", "--model", str(tmp_path / "base"), "--edit", str(tmp_path / "edit.safetensors"), "--json"]
    model_dtype = {"fp32": "float32", "fp16": "float16"}[dtype]
    made: dict[str, Path] = {"diffusers": tmp_path / "out", "single-file": tmp_path / "out.safetensors"}
    for layout, out in made.items():
        assert main([*base, "--format", layout, "--out", str(out), "--dtype", dtype, "--pictures", "0"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["folder" if out.suffix == "" else "file"] == str(out)
        assert (told["format"], told["dtype"], told["matched"]) == (layout, model_dtype, len(edit.names))
    folder, file = made.values()
    kind = type(model.pipeline)
    theirs = [
        kind.from_pretrained(folder, dtype=model.dtype),
        kind.from_single_file(str(file), config=str(tmp_path / "base"), dtype=model.dtype),
    ]
    with edit.apply(model):
        wanted = {name: tensor.detach().clone() for name, tensor in list_parts(model.pipeline).items()}
    assert not is_same(wanted, list_parts(model.pipeline))
    assert all(is_same(list_parts(each), wanted) for each in theirs)
    with safe_open(file, framework="pt") as opened:
        record = json.loads(opened.metadata()["efface"])
    assert (record["strength"], record["edit"]["request"]["targets"]) == (1.0, ["cat"])


def test_a_guide_is_not_exported(tmp_path, capsys):
    model = tiny_sdxl()
    meta = {"guide": {"name": "sld", "arguments": {}}, "base": model.fingerprint()}
    Edit({}, meta).save(tmp_path / "e.safetensors")
    for layout, out in (("single-file", "o.safetensors"), ("diffusers", "o")):
        asked = ["--format", layout, "--out", str(tmp_path / out)]
        assert main(["export", "--model", "glyphs", "--edit", str(tmp_path / "e.safetensors"), *asked]) == 2
        assert "is a guide (sld)" in capsys.readouterr().err
        assert not (tmp_path / out).exists()


def test_bad_exports_are_refused(tmp_path):
    model = tiny_sdxl()
    with pytest.raises(ValueError, match=r"a name that ends in \.safetensors would have worked"):
        single_file.save(model, tmp_path / "x.ckpt", {})
    (tmp_path / "x.safetensors").touch()
    with pytest.raises(FileExistsError, match="name a file that does not"):
        single_file.save(model, tmp_path / "x.safetensors", {})
    base = ["export", "--model", "glyphs", "--edit", "e", "--out"]
    assert main([*base, str(tmp_path / "folder"), "--format", "single-file"]) == 2
    assert main([*base, str(tmp_path / "y.safetensors")]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.safetensors"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sd.safetensors and xl.safetensors, their folders sd and xl, and what is wrong in some way."""
    folder = tmp_path_factory.mktemp("files")
    for name, model in (("sd", build_four_levels("1.x")), ("xl", tiny_sdxl())):
        model.save_pretrained(folder / name)
        single_file.save(model, folder / f"{name}.safetensors", {})
    tiny_pipeline().save_pretrained(folder / "other")
    held = load_file(folder / "sd.safetensors")
    save_file({n: t for n, t in held.items() if n.startswith("model.")}, folder / "unet.safetensors")
    save_file({n: t for n, t in held.items() if "output_blocks.7.0" not in n}, folder / "lacks.safetensors")
    save_file({n: t for n, t in held.items() if "1.mlp.fc1.bias" not in n}, folder / "deaf.safetensors")
    spare = {"model.diffusion_model.output_blocks.12.0.in_layers.0.bias": torch.zeros(8)}
    save_file({**held, **spare}, folder / "spare.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "sd.safetensors").read_bytes()[:-10])
    return folder


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.safetensors@sd", "no file"),
        ("cut.safetensors@sd", "truncated"),
        ("unet.safetensors@sd", "holds no whole checkpoint in the original layout"),
        ("sd.safetensors@xl", "holds a StableDiffusionPipeline, but .*xl is a StableDiffusionXLPipeline"),
        ("xl.safetensors@sd", "holds a StableDiffusionXLPipeline, but .*sd is a StableDiffusionPipeline"),
        ("sd.safetensors@nowhere", "no model .*nowhere'"),
        ("sd.safetensors@other", "does not fit .*other.*sd.safetensors@FOLDER"),
        ("lacks.safetensors@sd", "does not fit .*: it lacks tensors; .*@FOLDER"),
        ("deaf.safetensors@sd", r"lacks text_encoder\.\S*layers\.1\.mlp\.fc1\.bias \(1 such\); .*@FOLDER"),
        ("spare.safetensors@sd", r"holds unread model\.diffusion_model\.output_blocks\.12\..*@FOLDER"),
    ],
)
def test_what_does_not_fit_is_refused(files, source, message):
    file, config = source.split("@")
    with pytest.raises(ValueError, match=message):
        efface.load(f"{files / file}@{files / config}", device="cpu")


def test_without_a_configuration_and_a_hub_the_way_out_is_named(files, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("sd", "xl"):
        with pytest.raises(
            ValueError, match=rf"none is available; name a diffusers folder .*{name}\.safetensors@FOLDER"
        ):
            efface.load(str(files / f"{name}.safetensors"), device="cpu")


def test_folders_of_other_pipelines_say_what_would_work(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    with pytest.raises(ValueError, match=r"holds KandinskyPipeline; .*StableDiffusionXLPipeline, .*DDPMPipeline would"):
        efface.load(str(tmp_path))
    with pytest.raises(ValueError, match=r"cannot open a int.*in memory: StableDiffusionPipeline, StableDiffusionXL"):
        efface.load(3)
    assert isinstance(efface.load(tiny_sdxl_pipeline()), StableDiffusionXL)


def test_a_folder_of_a_ddpm_goes_to_its_adapter(tmp_path):
    model = tiny_ddpm()
    model.save_pretrained(tmp_path / "ddpm")
    opened = efface.load(str(tmp_path / "ddpm"), device="cpu")
    assert type(opened) is type(model)
    assert opened.fingerprint() == model.fingerprint()
    with pytest.raises(ValueError, match=r"is no Stable Diffusion 1\.x, 2\.x or XL; write it as a folder"):
        single_file.save(opened, tmp_path / "x.safetensors", {})
