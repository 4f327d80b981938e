from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler

import efface
from efface.concept import Prompt
from efface.edits.edit import Edit
from efface.models.adapters.sdxl import StableDiffusionXL
from efface.models.pictures import NoNumbers
from tiny_sdxl import tiny_sdxl, tiny_sdxl_pipeline

PROMPTS, SEEDS = ["a cat", "dog", "red car"], [5, 6, 7]
MOMENTS = {"latents_mean": [0.5, -0.2, 0.1, 0.3], "latents_std": [2.0, 3.0, 0.5, 1.5]}


@pytest.fixture(params=["epsilon", "v_prediction"])
def xl(request: pytest.FixtureRequest) -> StableDiffusionXL:
    return tiny_sdxl(request.param)


def compute_theirs(pipeline, steps: int, guidance: float) -> torch.Tensor:
    """uint8 pictures as the diffusers pipeline draws them."""
    rngs = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    out = pipeline(PROMPTS, num_inference_steps=steps, guidance_scale=guidance, generator=rngs, output_type="pil")
    return torch.from_numpy(np.stack([np.asarray(image) for image in out.images])).permute(0, 3, 1, 2)


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, DDIMScheduler, EulerAncestralDiscreteScheduler])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_equals_the_diffusers_pipeline(xl, scheduler, guidance):
    options = {"clip_sample": False} if scheduler is DDIMScheduler else {}
    xl.pipeline.scheduler = scheduler.from_config(xl.pipeline.scheduler.config, **options)
    ours = xl.images(PROMPTS, SEEDS, steps=5, guidance=guidance)
    assert ours.shape == (3, 3, 16, 16)
    assert ours.float().std() > 1
    assert (ours.int() - compute_theirs(xl.pipeline, 5, guidance).int()).abs().max() <= 1


@pytest.mark.parametrize(
    "options", [{"silent": False}, MOMENTS, {"scaling_factor": 0.5}], ids=["empty prompt", "moments", "scaling"]
)
def test_the_pipelines_settings_are_heeded(options):
    xl, plain = tiny_sdxl(**options), tiny_sdxl()
    ours = xl.images(PROMPTS, SEEDS, steps=3)
    assert (ours.int() - compute_theirs(xl.pipeline, 3, 3.0).int()).abs().max() <= 1
    assert (ours.int() - plain.images(PROMPTS, SEEDS, steps=3).int()).abs().max() > 1
    assert (xl.hash_decoder() != plain.hash_decoder()) == ("silent" not in options)


def test_half_precision_decodes_in_full_and_leaves_the_decoder_as_it_was(monkeypatch):
    xl = efface.load(tiny_sdxl_pipeline(), dtype="fp16")
    # Activations beyond fp16's 65504, as in the published decoder.
    with torch.no_grad():
        xl.vae.decoder.conv_in.weight.mul_(6e4)
    before = {name: tensor.clone() for name, tensor in xl.vae.state_dict().items()}
    latents = torch.randn(2, *xl.latent_shape, generator=torch.Generator().manual_seed(0)).half()
    ours = xl.decode(latents)
    whole = efface.load(tiny_sdxl_pipeline(), dtype="fp32")
    whole.vae.load_state_dict(before)
    assert (ours.int() - whole.decode(latents.float()).int()).abs().max() <= 1
    assert xl.vae.dtype == torch.float16
    assert all(torch.equal(tensor, before[name]) for name, tensor in xl.vae.state_dict().items())
    xl.vae.register_to_config(force_upcast=False)
    with pytest.raises(NoNumbers, match="2 of 2 pictures"):
        xl.decode(latents)


def test_conditions_are_the_pipelines(xl):
    tokens, _, pooled, _ = xl.pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    cond = xl.encode([*PROMPTS, ""]).tensors
    assert [tuple(cond[name].shape) for name in ("clip", "pooled", "time_ids")] == [(4, 8, 40), (4, 20), (4, 6)]
    assert torch.allclose(cond["clip"][:3], tokens)
    assert torch.allclose(cond["pooled"][:3], pooled)
    assert not cond["clip"][3].any() and not cond["pooled"][3].any()
    assert cond["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16]] * 4
    assert tiny_sdxl(silent=False).encode([""]).tokens.any()


def test_mixing_keeps_the_size(xl):
    mixed = xl.encode(PROMPTS).mix(torch.tensor([[0.2, 0.5, 0.3]]))
    assert torch.allclose(mixed.tensors["time_ids"], xl.encode(["dog"]).tensors["time_ids"])


def test_embedding_of_ones_own(xl):
    cat, dog = xl.encode(["cat"]).tensors, xl.encode(["dog"]).tensors
    tokens_only = xl.encode([Prompt("dog", cat["clip"][0])]).tensors
    assert torch.equal(tokens_only["clip"], cat["clip"])
    assert torch.equal(tokens_only["pooled"], dog["pooled"])
    both = xl.encode([Prompt("dog", torch.cat([cat["clip"].flatten(), cat["pooled"].flatten()]))])
    assert torch.equal(both.flatten(), xl.encode(["cat"]).flatten())
    with pytest.raises(ValueError, match=r"for tiny-xl is \(8, 40\), or 340 numbers .* got \(3,\)"):
        xl.encode([Prompt("dog", torch.zeros(3))])


def test_weights_carry_the_names_of_published_checkpoints(xl):
    names = set(xl.weights)
    assert {
        "unet.add_embedding.linear_1.weight",
        "unet.down_blocks.2.attentions.1.transformer_blocks.2.attn2.to_k.weight",
        "text_encoder.text_model.encoder.layers.1.self_attn.q_proj.weight",
        "text_encoder_2.text_model.encoder.layers.2.mlp.fc1.bias",
        "text_encoder_2.text_projection.weight",
    } <= names
    before = xl.encode(["cat"]).tensors
    with xl.swap_in({"text_encoder_2.text_projection.weight": 2 * xl.weights["text_encoder_2.text_projection.weight"]}):
        after = xl.encode(["cat"]).tensors
    assert torch.allclose(after["pooled"], 2 * before["pooled"])
    assert torch.equal(after["clip"], before["clip"])


def test_folder_round_trip(xl, tmp_path):
    xl.save_pretrained(tmp_path / "model")
    loaded = efface.load(str(tmp_path / "model"), device="cpu")
    assert isinstance(loaded, StableDiffusionXL)
    assert (loaded.defaults.steps, loaded.defaults.guidance) == (50, 5.0)
    assert loaded.fingerprint() == xl.fingerprint()
    assert loaded.hash_decoder() == xl.hash_decoder()
    assert torch.equal(loaded.images(PROMPTS, SEEDS, steps=3), xl.images(PROMPTS, SEEDS, steps=3, guidance=5.0))


@pytest.mark.parametrize("method", ["esd", "eap"])
def test_erasing_leaves_the_model_bit_identical_and_travels(xl, method, tmp_path):
    before = {key: (tensor, tensor.detach().clone()) for key, tensor in xl.weights.items()}
    pictures = xl.images(PROMPTS, SEEDS)
    edit = efface.erase(xl, "cat", method=method, steps=3, batch=2, draw_steps=3, paths=2, lr=1e-3)
    assert all(xl.weights[key] is tensor and torch.equal(tensor, copy) for key, (tensor, copy) in before.items())
    assert torch.equal(xl.images(PROMPTS, SEEDS), pictures)
    loaded = Edit.load(edit.save(tmp_path / "edit.safetensors"))
    drawn = []
    for each in (edit, loaded):
        with each.apply(xl):
            drawn.append(xl.images(PROMPTS, SEEDS))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], pictures)
    assert torch.equal(xl.images(PROMPTS, SEEDS), pictures)


def test_a_missing_part_is_named():
    pipeline = tiny_sdxl_pipeline()
    pipeline.text_encoder = None
    with pytest.raises(ValueError, match="has no text_encoder; a pipeline with unet, text_encoder, text_encoder_2"):
        efface.load(pipeline)
