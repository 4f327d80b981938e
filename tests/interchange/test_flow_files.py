"""SD3 and FLUX.1 × format: what diffusers' loaders and converters make of the files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_sd3_transformer_checkpoint_to_diffusers,
)

import efface
from efface.api.exporting import write_export
from efface.edits.edit import Edit
from efface.interchange.lora import package
from efface.interchange.names import list_layers, name_all, name_native, name_stems
from efface.interchange.native import map_flux_names
from efface.interchange.original import build_original
from efface.models import consumer
from efface.models.base import Model
from efface.models.loading import list_bundled
from efface.models.trajectory import draw_noise
from lora_fixtures import build_dense, build_low_rank, edit_with, is_same_change, list_matrices
from tiny_flux import tiny_flux
from tiny_sd3 import tiny_sd3

ARCHITECTURES: dict[str, Callable[[], Model]] = {"sd3": tiny_sd3, "flux": tiny_flux}
BLOCKS = ("attn.add_k_proj", "attn.to_v", "0.norm1.linear", "ff_context.net.0")
READERS = {
    "sd3-lora": "StableDiffusion3Pipeline.load_lora_weights",
    "sd3-kohya": "efface import",
    "sd3-comfy": "efface import",
    "flux-lora": "FluxPipeline.load_lora_weights",
    "flux-kohya": "FluxPipeline.load_lora_weights",
    "flux-comfy": "efface import",
}


def keep_double_blocks(model: Model, *parts: str) -> list[str]:
    """Without FLUX.1's single blocks, which diffusers converts at the published width alone."""
    return [name for name in list_matrices(model, *parts) if "single_transformer" not in name]


@pytest.mark.parametrize("cell", READERS)
def test_a_low_rank_edit_is_exact_in_every_format(cell: str, tmp_path: Path) -> None:
    kind, _, format = cell.partition("-")
    model = ARCHITECTURES[kind]()
    edit = build_low_rank(model, *keep_double_blocks(model, *BLOCKS, "text_encoder.text_model"))
    made = write_export(model, edit, tmp_path / "x.safetensors", format=format)  # type: ignore[arg-type]
    assert READERS[cell] in made.about["reader"] and made.about["matched"] == len(edit.names)
    assert made.about["residual"] < 1e-6 and made.about["gap"]["largest"] <= 2 and made.about["gap"]["edit"] > 0
    assert is_same_change(model, edit, efface.import_edit(model, made.path))


@pytest.mark.parametrize("format", ["kohya", "comfy", "single-file"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_change_that_is_small_beside_the_weights_is_checked_without_their_rounding(
    kind: str, format: Any, tmp_path: Path
) -> None:
    """As of the first steps of a training: 10^-5 of the weights, of which fp32 holds two digits beside them."""
    model = ARCHITECTURES[kind]()
    names = keep_double_blocks(model, "attn.add_k_proj", "attn.to_v")
    rng = torch.Generator().manual_seed(5)
    values = {
        n: w + 1e-5 * w.abs().mean() * torch.randn(w.shape, generator=rng)
        for n in names
        for w in (model.weights[n].detach(),)
    }
    edit = edit_with(model, values)
    made = write_export(model, edit, tmp_path / "x.safetensors", format=format, pictures=0)
    assert made.about["matched"] == len(names)


def test_of_a_small_low_rank_change_nothing_is_left_out(tmp_path: Path) -> None:
    """Beside the weight, fp32 holds none of its digits; the file holds its factors whole, and the residual says so."""
    model = tiny_sd3()
    edit = build_low_rank(model, "attn.add_k_proj")
    small = edit_with(model, {key: value * (1e-6 if key.endswith("up") else 1) for key, value in edit.values.items()})
    made = write_export(model, small, tmp_path / "x.safetensors", format="lora", pictures=0)
    assert made.about["residual"] == made.about["worst_residual"] == 0


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_half_the_weight_of_the_lora_is_strength_a_half(kind: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[kind]()
    edit = build_low_rank(model, "attn.add_k_proj", "attn.to_q", "context_embedder", "text_encoder.text_model")
    file = write_export(model, edit, tmp_path / "x.safetensors", format="lora", pictures=0).path
    loaded = consumer.load_lora(model, file)
    parts = [part for part in ("transformer", "text_encoder") if hasattr(getattr(loaded, part), "peft_config")]
    loaded.set_adapters(consumer.ADAPTER, 0.5)
    found = dict(consumer.read_lora(model, loaded))
    with edit.apply(model, 0.5):
        edited = {name: model.weights[name].detach().clone() for name in edit.names}
    assert parts == ["transformer", "text_encoder"] and found.keys() == edited.keys()
    for name, delta in found.items():
        assert torch.allclose(model.weights[name] + delta, edited[name], atol=1e-6)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_whole_model_is_opened_and_compared(kind: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[kind]()
    made = write_export(model, build_dense(model, "attn.add_v_proj"), tmp_path / "x", format="diffusers")
    assert made.about["gap"]["largest"] == 0 < made.about["gap"]["edit"]


@pytest.mark.parametrize(
    ("kind", "reader"), [("sd3", "SD3Transformer2DModel.from_single_file"), ("flux", "efface import")]
)
def test_a_single_file_in_the_original_layout_is_exact(kind: str, reader: str, tmp_path: Path) -> None:
    """Fused matrices, norms, halves that are swapped, and the autoencoder beside SD3's transformer."""
    model = ARCHITECTURES[kind]()
    edit = build_dense(
        model, "attn.add_v_proj", "norm_q", "norm_out", "norm1_context", "context_embedder", "time_text_embed"
    )
    made = write_export(model, edit, tmp_path / "x.safetensors", format="single-file", strength=0.5)
    assert reader in made.about["reader"] and made.about["matched"] == len(edit.names)
    assert made.about["gap"]["largest"] == 0 < made.about["gap"]["edit"]
    told = pytest.warns(UserWarning, match="they were left aside") if kind == "sd3" else nullcontext()
    with told:  # of the autoencoder
        back = efface.import_edit(model, made.path)
    assert is_same_change(model, edit_with(model, edit_at(model, edit, 0.5)), back)
    with pytest.raises(ValueError, match=r"holds the transformer and no text encoder, and the edit changes text_encod"):
        write_export(model, build_dense(model, "self_attn.k_proj"), tmp_path / "y.safetensors", format="single-file")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.json", "x.safetensors"]


def edit_at(model: Model, edit: Edit, strength: float) -> dict[str, torch.Tensor]:
    with edit.apply(model, strength):
        return {name: model.weights[name].detach().clone() for name in edit.names}


def test_a_single_file_of_flux_against_diffusers_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the published width, which the converter cuts at; every matrix has one column, so that it fits in memory."""
    model = tiny_flux()
    tiny, wide = 32, 3072
    rng = torch.Generator().manual_seed(0)
    rows = {
        name: torch.randn(len(weight) // tiny * wide if len(weight) % tiny == 0 else len(weight), generator=rng)
        for name, weight in model.weights.items()
        if name.startswith("transformer.")
    }
    base = {name: own if name.endswith("bias") else own[:, None] for name, own in rows.items()}
    monkeypatch.setattr(type(model), "weights", base)
    held = build_original(model)
    assert "double_blocks.0.img_attn.norm.query_norm.scale" in held
    back = convert_flux_transformer_checkpoint_to_diffusers(dict(held))
    ours = {name.removeprefix("transformer."): weight for name, weight in base.items()}
    assert back.keys() == ours.keys() and all(torch.equal(back[name], weight) for name, weight in ours.items())


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_comfy_holds_dense_changes_exactly(kind: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[kind]()
    edit = build_dense(model, "attn.to_k", "norm_q", "context_embedder", "norm_out")
    made = write_export(model, edit, tmp_path / "x.safetensors", format="comfy")
    assert made.about["exact"] == len(edit.names) and made.about["gap"]["largest"] <= 1
    assert is_same_change(model, edit, efface.import_edit(model, made.path))


def test_what_diffusers_leaves_out_of_a_kohya_file_is_refused(tmp_path: Path) -> None:
    model = tiny_flux()
    edit = build_low_rank(model, "context_embedder")
    with pytest.raises(
        ValueError,
        match=r"the edit changes transformer.context_embedder.weight .*--format lora, comfy or diffusers may",
    ):
        write_export(model, edit, tmp_path / "x.safetensors", format="kohya")
    assert list(tmp_path.iterdir()) == []
    assert write_export(model, edit, tmp_path / "x.safetensors", format="lora").about["matched"] == 1


def test_original_names_of_sd3_against_diffusers_converter() -> None:
    """Every weight of the transformer, stacked under its original name, comes back through diffusers' converter."""
    model = tiny_sd3()
    base = {name: weight.detach() for name, weight in model.weights.items()}
    held: dict[str, torch.Tensor] = {"pos_embed": torch.zeros(1)}
    for name, stem in name_native(model).items():
        for leaf in ("weight", "bias"):
            own = [base[key] for layer in stem.layers if (key := f"{layer}.{leaf}") in base]
            if own:
                whole = torch.cat(own)
                held[f"{name}.{leaf}"] = torch.cat(whole.chunk(2)[::-1]) if stem.swapped else whole
    back = convert_sd3_transformer_checkpoint_to_diffusers(held)
    ours = {name.removeprefix("transformer."): w for name, w in base.items() if name.startswith("transformer.")}
    assert back.keys() - {"pos_embed.pos_embed"} == ours.keys()
    assert all(torch.equal(back[name], weight) for name, weight in ours.items())


def test_a_single_block_of_flux_against_diffusers_converter() -> None:
    """q, k, v and the feed-forward layer are one matrix in the original, in this order and of these widths."""
    layers = [f"single_transformer_blocks.0.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    ((name, (stacked, swapped)),) = map_flux_names(layers).items()
    assert (name, list(stacked), swapped) == ("single_blocks.0.linear1", layers, False)
    rows = torch.tensor([3072, 3072, 3072, 12288])
    up = torch.repeat_interleave(torch.arange(4.0), rows)[:, None]
    key = f"lora_unet_{name.replace('.', '_')}"
    parts = {"lora_down.weight": torch.ones(1, 3072), "lora_up.weight": up, "alpha": torch.tensor(1.0)}
    back = _convert_kohya_flux_lora_to_diffusers({f"{key}.{part}": tensor for part, tensor in parts.items()})
    for i, layer in enumerate(layers):
        own = back[f"transformer.{layer}.lora_B.weight"]
        assert own.shape == (int(rows[i]), 1) and bool((own == i).all())


def test_q_k_and_v_become_one_matrix_with_factors_on_its_diagonal() -> None:
    model = tiny_flux()
    edit = build_low_rank(model, *(f"transformer_blocks.0.attn.add_{x}_proj" for x in "qkv"))
    held = package(model, edit, "kohya").tensors
    down = held["lora_unet_double_blocks_0_txt_attn_qkv.lora_down.weight"]
    up = held["lora_unet_double_blocks_0_txt_attn_qkv.lora_up.weight"]
    assert len(held) == 3 and len(down) == up.shape[1] == held["lora_unet_double_blocks_0_txt_attn_qkv.alpha"] == 6
    rows = (up @ down).chunk(3)
    for part, x in zip(rows, "qkv", strict=True):
        name = f"transformer.transformer_blocks.0.attn.add_{x}_proj.weight"
        assert torch.allclose(part, edit.values[f"{name}:up"] @ edit.values[f"{name}:down"], atol=1e-6)
    back = _convert_kohya_flux_lora_to_diffusers(dict(held))
    for x in "qkv":
        layer = f"transformer.transformer_blocks.0.attn.add_{x}_proj"
        assert torch.equal(back[f"{layer}.lora_A.weight"], edit.values[f"{layer}.weight:down"])
        assert torch.equal(back[f"{layer}.lora_B.weight"], edit.values[f"{layer}.weight:up"])


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_layer_has_one_name(kind: str) -> None:
    model = ARCHITECTURES[kind]()
    spelled = name_all(model)
    for format in ("lora", "kohya", "comfy"):
        stems = name_stems(model, format)
        layers = [layer for stem in stems.values() for layer in stem.layers]
        assert len(layers) == len(set(layers)) == len(list_layers(model))
        assert all(spelled[key] == stem for key, stem in stems.items())


def test_a_layer_without_an_original_name_is_named() -> None:
    with pytest.raises(ValueError, match=r"'transformer_blocks.0.new' has no name in the original layout \(1 such"):
        map_flux_names(["transformer_blocks.0.new"])


def export_and_draw(model: Model, folder: Path) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """What an exported folder's pipeline draws, called as its record says, and the edit's own pictures."""
    edit = build_low_rank(model, "attn.add_k_proj")
    made = write_export(model, edit, folder, format="diffusers")
    asked = {"num_inference_steps": 3, "guidance_scale": 3.0, "height": model.resolution, "width": model.resolution}
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, **dict.fromkeys(made.about["absent"]))
    noise = draw_noise([3], model.latent_shape)[1]
    theirs = pipeline(prompt="a cat", latents=noise, output_type="pt", **asked, **made.about["call"]).images
    with edit.apply(model):
        ours = model.images(["a cat"], [3], steps=3, guidance=3.0)
    return theirs * 255, ours.float(), made.about


def test_a_pipeline_without_t5_is_called_as_its_record_says(tmp_path: Path) -> None:
    """The pipeline reads 256 zeros in the place of a missing T5's states; this model is drawn with three."""
    model = tiny_sd3(t5=False)
    theirs, ours, about = export_and_draw(model, tmp_path / "x")
    assert about["absent"] == ["text_encoder_3", "tokenizer_3"] and about["call"] == {"max_sequence_length": 3}
    assert about["gap"]["largest"] == 0 < about["gap"]["edit"]
    assert (theirs - ours).abs().max() <= 1
    opened: Any = efface.load(str(tmp_path / "x"))
    assert opened.tokens_of_t5 == 3
    assert tiny_sd3().describe_use() == {"architecture": "sd3", "absent": [], "call": {}}


@pytest.mark.skipif("glyphs-flow" not in list_bundled(), reason="glyphs-flow is not bundled")
def test_the_embedded_flow_is_drawn_by_diffusers_from_its_exports(tmp_path: Path) -> None:
    model = efface.load("glyphs-flow", "cpu", compute="own")
    theirs, ours, about = export_and_draw(model, tmp_path / "x")
    assert about["call"] == {"max_sequence_length": 0} and (theirs - ours).abs().max() <= 1
    edit = build_low_rank(model, "attn.add_k_proj")
    for format in ("single-file", "lora"):
        made = write_export(model, edit, tmp_path / f"{format}.safetensors", format=format, pictures=1)  # type: ignore[arg-type]
        assert made.about["gap"]["largest"] <= 1 < made.about["gap"]["edit"]
