"""Uncommon pipelines from memory that are served: compiled parts, new tokens, other autoencoders and schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

import efface
from efface.edits.edit import Edit
from tiny import tiny_pipeline
from tiny_sdxl import tiny_sdxl_pipeline


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method")
def test_compiled_parts_are_unwrapped_and_the_pipeline_keeps_them() -> None:
    plain, pipeline = efface.load(tiny_pipeline()), tiny_pipeline()
    parts = ("unet", "text_encoder", "vae")
    for part in parts:
        setattr(pipeline, part, torch.compile(getattr(pipeline, part)))
    opened = efface.load(pipeline)
    assert opened.weights.keys() == plain.weights.keys()
    assert opened.hash_decoder() == plain.hash_decoder()
    assert all(hasattr(getattr(pipeline, part), "_orig_mod") for part in parts)
    assert not any(hasattr(getattr(opened.pipeline, part), "_orig_mod") for part in parts)
    edit = Edit({"unet.conv_in.bias": torch.ones(8)}, {"base": opened.fingerprint()})
    with edit.apply(plain), edit.apply(opened):
        assert torch.equal(opened.images(["cat"], steps=2), plain.images(["cat"], steps=2))


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl_pipeline])
@pytest.mark.parametrize("vectors", [1, 3])
def test_a_textual_inversion_of_several_vectors_is_read_whole(make: Callable[[], Any], vectors: int) -> None:
    pipeline = make()
    words = ["<toy>", *(f"<toy>_{i}" for i in range(1, vectors))]
    for tail in ("", "_2") if hasattr(pipeline, "text_encoder_2") else ("",):
        tokenizer, encoder = (getattr(pipeline, f"{part}{tail}") for part in ("tokenizer", "text_encoder"))
        tokenizer.add_tokens(words)
        encoder.resize_token_embeddings(len(tokenizer))
    opened = efface.load(pipeline)
    ours = opened.encode(["a <toy>"]).tokens
    theirs = pipeline.encode_prompt("a <toy>", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    assert torch.equal(ours, theirs[0])
    ids = opened.tokenize(["a <toy>"])[0].tolist()
    assert [ids.count(number) for number in pipeline.tokenizer.convert_tokens_to_ids(words)] == [1] * vectors


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl_pipeline])
def test_a_tiny_autoencoder_draws_and_reads(make: Callable[[], Any]) -> None:
    pipeline = cast(Any, make())
    torch.manual_seed(0)
    two: dict[str, Any] = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    pipeline.vae = AutoencoderTiny(**two, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), latent_channels=4)
    model = efface.load(pipeline)
    pictures = model.images(["a cat"], [5], steps=2, guidance=2.0)
    rng = torch.Generator().manual_seed(5)
    theirs = pipeline("a cat", num_inference_steps=2, guidance_scale=2.0, generator=rng, output_type="pt").images
    assert (pictures.float() - (theirs * 255).round()).abs().max() <= 1
    pixels = pictures.float() / 127.5 - 1
    assert torch.allclose(model.encode_pictures(pictures), cast(Any, pipeline.vae).encode(pixels).latents, atol=1e-5)


def test_a_square_given_as_a_list_and_an_autoencoder_of_another_dtype_are_served() -> None:
    plain, pipeline = efface.load(tiny_pipeline()), tiny_pipeline()
    pipeline.unet.register_to_config(sample_size=[8, 8])
    pipeline.vae.to(torch.bfloat16)
    opened = efface.load(pipeline)
    assert (opened.resolution, opened.latent_shape) == (16, (4, 8, 8))
    far = opened.images(["cat"], steps=2).int() - plain.images(["cat"], steps=2).int()
    assert far.abs().float().mean() < 4


def test_zero_terminal_snr_is_no_picture_and_not_nan() -> None:
    pipeline = cast(Any, tiny_pipeline("v_prediction"))
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **zero)
    model = efface.load(pipeline)
    level = model.find_noise_level(torch.tensor([0.0, 998.0, 998.5, 999.0]))
    own = cast(Any, pipeline.scheduler).alphas_cumprod
    assert torch.allclose(level.alpha[:2].square().float(), own[[0, 998]], rtol=1e-4)
    assert level.alpha[2:].tolist() == [0, 0] and level.sigma[2:].tolist() == [1, 1]
    assert model.list_timesteps(4)[0] == 999
    for method in ("esd", "eap"):
        edit = efface.erase(model, "cat", method, steps=2, batch=2, draw_steps=4, paths=2, progress=False)
        assert all(value.isfinite().all() for value in edit.values.values())


def test_ddim_draws_on_the_models_own_noise_levels() -> None:
    """Euler's zero terminal SNR stops at 2^-24, where DDIM's own is 0 and a prediction of noise has no picture."""
    pipeline = cast(Any, tiny_pipeline())
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config, **zero)
    model = efface.load(pipeline)
    assert torch.equal(model.build_scheduler("ddim").alphas_cumprod, cast(Any, pipeline.scheduler).alphas_cumprod)
    cond, uncond = model.encode(["cat"]), model.encode([""])
    assert model.sample(cond, uncond, [0], steps=4, sampler="ddim").x.isfinite().all()
