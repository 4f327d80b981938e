"""FLUX.1: the same pictures as its diffusers pipeline draws, with embedded and with true guidance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

import efface
from efface.concept import Prompt
from efface.models.adapters.flux import Flux
from efface.models.adapters.guidance_input import GUIDANCE
from efface.models.adapters.patches import pack_patches, unpack_patches
from efface.models.trajectory import draw_noise
from text_map_checks import check_text_maps
from tiny_flux import tiny_flux, tiny_flux_pipeline

PROMPTS, SEEDS = ["a red cat", "a dog"], [3, 4]


@pytest.fixture
def model() -> Flux:
    return tiny_flux()


def draw_by_diffusers(
    model: Flux, guidance: float, true: float = 1.0, steps: int = 3
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and uint8 pictures that the pipeline itself draws from our noise."""
    noise = pack_patches(draw_noise(SEEDS, model.latent_shape)[1])
    assert model.true_guidance == true
    asked: dict[str, Any] = {"num_inference_steps": steps, **model.build_call(PROMPTS, guidance)}
    latents = model.pipeline(latents=noise, output_type="latent", **asked).images
    pictures = model.pipeline(latents=noise, output_type="np", **asked).images
    drawn = torch.from_numpy(np.asarray(pictures)).permute(0, 3, 1, 2).mul(255).round().to(torch.uint8)
    return unpack_patches(latents, 8), drawn


@pytest.mark.parametrize(
    ("dev", "guidance", "true"), [(True, 3.5, 1.0), (True, 1.0, 1.0), (True, 2.0, 3.0), (False, 1.0, 1.0)]
)
def test_it_draws_as_its_pipeline_does(dev: bool, guidance: float, true: float) -> None:
    model = tiny_flux(dev)
    model.true_guidance = true
    latents, pictures = draw_by_diffusers(model, guidance, true)
    ours = model.sample(model.encode(PROMPTS), model.encode([""]), SEEDS, steps=3, guidance=guidance)
    torch.testing.assert_close(ours.x, latents, rtol=1e-5, atol=1e-5)
    drawn = model.images(PROMPTS, SEEDS, steps=3, guidance=guidance)
    assert drawn.float().std() > 1 and (drawn.int() - pictures.int()).abs().max() <= 1


def test_guidance_is_a_number_that_the_network_reads(model: Flux) -> None:
    cond, uncond = model.encode(PROMPTS), model.encode([""])
    assert cond.extra[GUIDANCE].tolist() == [[3.5], [3.5]]
    calls: list[int] = []
    handle = model.network.register_forward_pre_hook(
        lambda _, args, kw: calls.append(len(kw["hidden_states"])), with_kwargs=True
    )
    drawn = [model.sample(cond, uncond, SEEDS, steps=2, guidance=g).x for g in (1.0, 3.5)]
    handle.remove()
    assert calls == [2] * 4 and (drawn[0] - drawn[1]).abs().max() > 1e-4


def test_what_is_recorded_is_predicted_at_the_models_own_guidance(model: Flux) -> None:
    """As a training asks for it, whatever guidance the states were drawn by."""
    cond, uncond = model.encode(PROMPTS), model.encode([""])
    draw = model.sample(cond, uncond, SEEDS, steps=3, guidance=1.0, record=True)
    with torch.no_grad():
        asked = model.predict(draw.states[1], draw.t[1], cond, uncond)
    assert torch.allclose(draw.eps_c[1], asked[0], atol=1e-6) and torch.allclose(draw.eps_0[1], asked[1], atol=1e-6)


def test_schnell_has_no_guidance() -> None:
    model = tiny_flux(dev=False)
    with pytest.raises(ValueError, match="no unconditional prediction to guide by; draw it with guidance 1"):
        model.images(PROMPTS, SEEDS, guidance=3.5)
    assert model.images("a cat", steps=2).shape == (1, 3, 16, 16)


def test_patches_are_those_of_diffusers() -> None:
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(pack_patches(x), FluxPipeline._pack_latents(x, 2, 4, 8, 8))
    assert torch.equal(unpack_patches(pack_patches(x), 8), x)


def test_text_maps_say_what_reads_the_prompt(model: Flux) -> None:
    check_text_maps(model)


def test_clips_tokens_are_heard_by_the_pooled_embedding_alone(model: Flux) -> None:
    read, own = model.encode_embedded(model.embed(model.tokenize(PROMPTS))), model.encode(PROMPTS)
    assert torch.allclose(read.tensors["pooled"], own.tensors["pooled"], atol=1e-5)
    assert torch.allclose(read.tokens, model.encode([""]).tokens.expand(2, -1, -1), atol=1e-5)
    prefix, passes = torch.zeros(2, 1, 12, requires_grad=True), []
    counting = model.t5.register_forward_hook(lambda *_: passes.append(1))
    moved = model.encode_with_grad(PROMPTS, prefix)
    counting.remove()
    assert len(passes) == 1
    assert torch.allclose(moved.tokens, own.tokens, atol=1e-5)
    (grad,) = torch.autograd.grad(moved.tensors["pooled"].square().sum(), [prefix])
    assert grad.any()


def test_an_embedding_stands_for_all_that_is_read(model: Flux) -> None:
    cat = model.encode(["a cat"])
    own = model.encode([Prompt("a dog", model.get_embedding(cat)[0])])
    assert all(torch.equal(part, cat.tensors[name]) for name, part in own.tensors.items())
    with pytest.raises(ValueError, match=r"an embedding for tiny-flux is \(10, 32\), or 332 numbers"):
        model.encode([Prompt("", torch.zeros(3))])


@pytest.mark.parametrize("dev", [True, False])
def test_it_opens_from_a_folder_and_from_memory(dev: bool, tmp_path: Path) -> None:
    ours = efface.load(tiny_flux_pipeline(dev))
    assert isinstance(ours, Flux) and (ours.defaults.guidance, ours.defaults.steps) == ((3.5, 28) if dev else (1.0, 4))
    ours.save_pretrained(tmp_path / "model")
    again = efface.load(tmp_path / "model", "cpu")
    assert again.fingerprint() == ours.fingerprint() and again.resolution == 256
    assert {"text_encoder_2.shared.weight", "text_encoder.text_model.final_layer_norm.weight"} <= {*again.weights}
