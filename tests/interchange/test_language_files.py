"""SANA, Z-Image, Qwen-Image and FLUX.2 × format: what diffusers' own LoRA loaders make of the files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_z_image_transformer_checkpoint_to_diffusers
from safetensors.torch import save_file

import efface
from efface.api.exporting import write_export
from efface.models import consumer
from efface.models.base import Model
from lora_fixtures import build_dense, build_low_rank, is_same_change
from tiny_language import tiny_flux2, tiny_qwen_image, tiny_sana, tiny_z_image

ARCHITECTURES: dict[str, Callable[[], Model]] = {
    "sana": tiny_sana,
    "z-image": tiny_z_image,
    "qwen-image": tiny_qwen_image,
    "flux2": tiny_flux2,
    "klein": lambda: tiny_flux2(klein=True),
}
READERS = {
    "sana": "SanaPipeline.load_lora_weights",
    "z-image": "ZImagePipeline.load_lora_weights",
    "qwen-image": "QwenImagePipeline.load_lora_weights",
    "flux2": "Flux2Pipeline.load_lora_weights",
    "klein": "Flux2KleinPipeline.load_lora_weights",
}
PARTS = ("attn.add_k_proj", "attn2.to_v", "attention.to_q", "attn.to_out.0", "feed_forward", "txt_in", "ff_context")
PARTS += ("to_qkv_mlp_proj", "caption_projection", "conv_inverted", "context_embedder", "cap_embedder")
PROMPTS, SEEDS = ["a red cat", "dog"], [3, 4]


def draw(model: Model, pipeline: object) -> torch.Tensor:
    return consumer.draw(model, pipeline, PROMPTS, SEEDS, 3, model.defaults.guidance).float()


def is_off_by_little(gap: dict[str, float]) -> bool:
    """By rounding alone, beside what the edit itself changes."""
    return gap["largest"] <= 2 and gap["mean"] < 0.1 * gap["edit"]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_low_rank_edit_is_exact_and_as_strong_in_its_reader(kind: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[kind]()
    edit = build_low_rank(model, *PARTS)
    made = write_export(model, edit, tmp_path / "x.safetensors", format="lora")
    assert made.about["reader"] == f"diffusers' {READERS[kind]}" and made.about["matched"] == len(edit.names) > 2
    assert made.about["residual"] < 1e-6 and is_off_by_little(made.about["gap"])
    assert is_same_change(model, edit, efface.import_edit(model, made.path))
    loaded = consumer.load_lora(model, made.path)
    loaded.set_adapters(consumer.ADAPTER, 0.5)
    with edit.apply(model, 0.5):
        half = draw(model, consumer.share_pipeline(model.pipeline))
        for name, delta in consumer.read_lora(model, loaded):  # as its user has set it
            change = 0.5 * edit.values[f"{name}:up"] @ edit.values[f"{name}:down"]
            assert torch.allclose(delta.flatten(1), change, atol=1e-6)
    theirs, base = draw(model, loaded), draw(model, consumer.share_pipeline(model.pipeline))
    assert (theirs - half).abs().max() <= 2 and (theirs - half).abs().mean() < 0.1 * (base - half).abs().mean()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_whole_model_is_opened_and_compared(kind: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[kind]()
    edit = build_dense(model, "to_k")
    # The short templates of the other tiny models are set on them in memory, and in no folder.
    pictures = 2 if kind in ("z-image", "klein") else 0
    made = write_export(model, edit, tmp_path / "x", format="diffusers", pictures=pictures)
    assert made.about["reader"].endswith("from_pretrained") and made.about["matched"] == len(edit.names)
    assert not pictures or made.about["gap"]["largest"] == 0 < made.about["gap"]["edit"]


def test_no_format_is_suggested_that_the_architecture_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of FLUX.2 there is no comfy file: neither before the work nor after the reader's check is it named."""
    model, file = tiny_flux2(), tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match=r"changes transformer.norm_out.* --format lora or diffusers may hold it$"):
        write_export(model, build_low_rank(model, "norm_out", "to_q"), file, format="kohya")
    whole = consumer.read_lora
    monkeypatch.setattr(consumer, "read_lora", lambda model, loaded: list(whole(model, loaded))[1:])
    with pytest.raises(ValueError, match=r"leaves out 'transformer.* --format lora or diffusers may hold it$"):
        write_export(model, build_low_rank(model, "to_q"), file, format="kohya")
    norm = next(name for name, weight in model.weights.items() if name.startswith("transformer.") and weight.dim() == 1)
    lone = replace(build_dense(model, "to_q"), values={norm: model.weights[norm] + 1})
    with pytest.raises(ValueError, match=r"hold none of it; --format diffusers holds the whole model$"):
        write_export(model, lone, file, format="lora")


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_no_reader_would_load_is_refused_before_any_work(kind: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[kind]()
    file = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match=r"loads a LoRA into transformer alone, and the edit changes text_encoder\."):
        write_export(model, build_low_rank(model, "text_encoder"), file, format="lora")
    for format in ("kohya", "comfy") if kind == "sana" else ("comfy",):  # diffusers reads a kohya file of the others
        with pytest.raises(ValueError, match=f"--format {format} can't hold a model of the kind"):
            write_export(model, build_low_rank(model, "to_k"), file, format=format)
    with pytest.raises(ValueError, match="can't hold a model of the kind"):
        write_export(model, build_low_rank(model, "to_k"), file, format="single-file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prefix", ["diffusion_model.", "model.diffusion_model.", "lora_unet_"])
@pytest.mark.parametrize("kind", ["z-image", "qwen-image", "sana"])
def test_a_lora_with_comfys_prefix_comes_in(kind: str, prefix: str, tmp_path: Path) -> None:
    """Trainers that write for ComfyUI keep diffusers' names of these layers, behind a prefix."""
    model = ARCHITECTURES[kind]()
    edit = build_low_rank(model, *PARTS)
    held = {}
    for name in edit.names:
        layer = name.removeprefix("transformer.").removesuffix(".weight")
        key = prefix + (layer.replace(".", "_") if prefix == "lora_unet_" else layer)
        held[f"{key}.lora_A.weight"], held[f"{key}.lora_B.weight"] = (
            edit.values[f"{name}:down"].flatten(1),
            edit.values[f"{name}:up"].flatten(1),
        )
    save_file(held, tmp_path / "theirs.safetensors")
    assert is_same_change(model, edit, efface.import_edit(model, tmp_path / "theirs.safetensors", "cat"))


def name_as_published(model: Model) -> dict[str, torch.Tensor]:
    """Z-Image's transformer under the names of the published file, written by hand."""
    held: dict[str, torch.Tensor] = {"norm_final.weight": torch.ones(3)}
    for name, tensor in model.network.state_dict().items():
        new = name.replace("all_x_embedder.2-1.", "x_embedder.").replace("all_final_layer.2-1.", "final_layer.")
        new = new.replace("attention.norm_q.", "attention.q_norm.").replace("attention.norm_k.", "attention.k_norm.")
        new = new.replace("attention.to_out.0.", "attention.out.")
        if ".to_q." in new:
            parts = [model.network.state_dict()[name.replace("to_q", f"to_{x}")] for x in "qkv"]
            held[new.replace("to_q", "qkv")] = torch.cat(parts).clone()
        elif ".to_k." not in new and ".to_v." not in new:
            held[new] = tensor.clone()
    return held


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_z_images_published_layout_comes_in(prefix: str, tmp_path: Path) -> None:
    """q, k and v are one matrix there; diffusers' converter makes the same weights of the file."""
    model = tiny_z_image()
    edit = build_dense(model, "to_k", "cap_embedder", "all_final_layer", "to_out")
    with edit.apply(model):
        held = {f"{prefix}{name}": tensor for name, tensor in name_as_published(model).items()}
        wanted = {name: tensor.detach().clone() for name, tensor in model.network.state_dict().items()}
    save_file(held, tmp_path / "tuned.safetensors")
    back = convert_z_image_transformer_checkpoint_to_diffusers(dict(held))
    assert back.keys() == wanted.keys() and all(torch.equal(back[name], wanted[name]) for name in wanted)
    with pytest.warns(UserWarning, match="norm_final"):
        came = efface.import_edit(model, tmp_path / "tuned.safetensors", "cat")
    assert sorted(came.names) == sorted(edit.names) and is_same_change(model, edit, came, 0)


def test_a_lora_of_z_images_joined_matrix_comes_in(tmp_path: Path) -> None:
    model = tiny_z_image()
    rng = torch.Generator().manual_seed(3)
    down, up = torch.randn(2, 32, generator=rng), torch.randn(96, 2, generator=rng)
    key = "diffusion_model.layers.0.attention.qkv"
    save_file({f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}, tmp_path / "theirs.safetensors")
    edit = efface.import_edit(model, tmp_path / "theirs.safetensors", "cat")
    for rows, x in zip((up @ down).chunk(3), "qkv", strict=True):
        name = f"transformer.layers.0.attention.to_{x}.weight"
        assert torch.allclose(edit.values[f"{name}:up"] @ edit.values[f"{name}:down"], rows, atol=1e-5)
