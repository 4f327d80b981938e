"""SANA, Z-Image, Qwen-Image and FLUX.2: the same pictures as their diffusers pipelines draw, and how they read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import efface
from efface.concept import Prompt
from efface.models.adapters.flux2 import Flux2
from efface.models.adapters.language import LanguageFlow
from efface.models.adapters.patches import pack_patches, unpack_patches
from efface.models.adapters.qwen_image import QwenImage
from efface.models.adapters.sana import Sana
from efface.models.adapters.z_image import ZImage
from efface.models.trajectory import draw_noise
from efface.training.subsets import select
from tiny_language import (
    tiny_flux2,
    tiny_flux2_pipeline,
    tiny_qwen_image,
    tiny_qwen_image_pipeline,
    tiny_sana,
    tiny_sana_pipeline,
    tiny_z_image,
    tiny_z_image_pipeline,
)

PROMPTS, SEEDS = ["a red cat", "dog"], [3, 4]
MODELS: dict[str, Callable[[], LanguageFlow]] = {
    "sana": tiny_sana,
    "z-image": tiny_z_image,
    "qwen-image": tiny_qwen_image,
    "flux2": tiny_flux2,
    "klein": lambda: tiny_flux2(klein=True),
}


def draw_by_diffusers(model: LanguageFlow, guidance: float, steps: int = 3) -> tuple[Tensor, Tensor]:
    """Latents and uint8 pictures that the pipeline itself draws from our noise, which decides the size."""
    noise = draw_noise(SEEDS, model.latent_shape)[1]
    packed = pack_patches(noise) if isinstance(model, QwenImage) else noise
    latents, pictures = (
        model.pipeline(
            latents=packed, output_type=kind, num_inference_steps=steps, **model.build_call(PROMPTS, guidance)
        ).images
        for kind in ("latent", "np")
    )
    if isinstance(model, QwenImage):
        latents = unpack_patches(latents, 8)
    elif isinstance(model, Flux2) and model.klein:  # whose pipeline gives what the decoder reads
        mean, std = model.read_moments(latents)
        latents = (model.pipeline._patchify_latents(latents) - mean) / std
    elif isinstance(model, Flux2):
        latents = model.unpack(latents)
    return latents, torch.from_numpy(np.asarray(pictures)).permute(0, 3, 1, 2).mul(255).round().to(torch.uint8)


def is_equal(model: LanguageFlow, guidance: float) -> None:
    latents, pictures = draw_by_diffusers(model, guidance)
    ours = model.sample(model.encode(PROMPTS), model.encode([""]), SEEDS, steps=3, guidance=guidance)
    torch.testing.assert_close(ours.x, latents, rtol=1e-5, atol=1e-5)
    drawn = model.images(PROMPTS, SEEDS, steps=3, guidance=guidance)
    assert drawn.float().std() > 1 and (drawn.int() - pictures.int()).abs().max() <= 1


@pytest.mark.parametrize("guidance", [1.0, 4.5])
@pytest.mark.parametrize("told", ["after the instruction", "bare"])
def test_sana_draws_as_its_pipeline_does(guidance: float, told: str) -> None:
    model = tiny_sana()
    model.instruction = model.instruction if told == "after the instruction" else []
    is_equal(model, guidance)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_z_image_draws_as_its_pipeline_does(guidance: float) -> None:
    """What we call 3 is the pipeline's 2, pos + 2 (pos - neg)."""
    model = tiny_z_image()
    is_equal(model, guidance)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_qwen_image_draws_as_its_pipeline_does(guidance: float) -> None:
    model = tiny_qwen_image()
    is_equal(model, guidance)


@pytest.mark.parametrize(
    ("klein", "distilled", "guidance"), [(False, False, 2.5), (True, False, 3.0), (True, True, 1.0)]
)
def test_flux2_draws_as_its_pipeline_does(klein: bool, distilled: bool, guidance: float) -> None:
    model = tiny_flux2(klein, distilled)
    assert model.layers == (1, 2, 3)
    is_equal(model, guidance)


def test_distilled_models_have_no_guidance() -> None:
    for model in (tiny_flux2(klein=True, distilled=True), tiny_z_image("tiny-z-image-turbo")):
        assert not model.has_uncond
        with pytest.raises(ValueError, match="no unconditional prediction to guide by"):
            model.images("a cat", guidance=3.0)


@pytest.mark.parametrize("kind", MODELS)
def test_padding_is_zeros_under_a_mask_or_read_as_it_is(kind: str) -> None:
    model = MODELS[kind]()
    cond = model.encode(["a red cat", "dog", ""])
    if cond.mask is None:
        assert kind in ("flux2", "klein")
        return
    lengths = cond.mask.sum(dim=1).tolist()
    assert lengths[0] > lengths[1] > lengths[2]
    other = cond.with_embedding(torch.where(cond.mask[:, :, None], cond.tokens, 7.0))
    x = torch.randn(3, *model.latent_shape)
    with torch.no_grad():
        assert torch.allclose(model.predict(x, 500.0, cond)[0], model.predict(x, 500.0, other)[0], atol=1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_the_last_token_of_a_concept_is_found(kind: str) -> None:
    """What follows a text cannot change what a causal language model says at or before its last token."""
    model = MODELS[kind]()
    (span,) = model.list_text_spans("language")
    first, second = model.encode(["a red cat", "a red cat tiger"]).tokens
    (place,) = span.find_last(["a red cat"])
    assert torch.allclose(first[: place + 1], second[: place + 1], atol=1e-5)
    assert not torch.allclose(first[place + 1], second[place + 1], atol=1e-3)
    assert not torch.allclose(model.encode(["a red dog"]).tokens[0, place], first[place], atol=1e-3)


@pytest.mark.parametrize("kind", MODELS)
def test_text_maps_say_what_reads_the_prompt(kind: str) -> None:
    """Recorded inside a pass: each map that a prompt decides gets exactly what `get_text_inputs` gives."""
    model = MODELS[kind]()
    cond, seen = model.encode(["a red cat"]), {}
    maps = [each for each in model.list_text_maps() if each.decided]
    hooks = [
        model.network.get_submodule(
            each.weight.removeprefix("transformer.").removesuffix(".weight")
        ).register_forward_pre_hook(lambda _, args, name=each.weight: seen.update({name: args[0]}))
        for each in maps
    ]
    with torch.no_grad():
        model.predict(torch.randn(1, *model.latent_shape), 500.0, cond)
    for hook in hooks:
        hook.remove()
    assert maps and maps[0].role == "embedder"
    for each in maps:
        read, wanted = seen[each.weight].flatten(0, -2), model.get_text_inputs(cond, each.part)[0]
        n = int(cond.mask.sum()) if cond.mask is not None else len(wanted)
        assert torch.allclose(read[:n], wanted[:n], atol=1e-6)
    joint = kind in ("qwen-image", "flux2", "klein")
    roles = {each.role for each in model.list_text_maps()}
    assert roles == ({"embedder"} if kind == "z-image" else {"embedder", "cross"})
    assert select(model.weights, "embedder") and (kind == "z-image" or select(model.weights, "cross"))
    assert bool([n for n in model.weights if ".attn.add_k_proj." in n]) == joint


@pytest.mark.parametrize("kind", MODELS)
def test_pictures_and_latents_are_each_others_inverse_as_far_as_the_autoencoder_is(kind: str) -> None:
    model = MODELS[kind]()
    x = torch.randn(2, *model.latent_shape)
    pixels = model.decode(x)
    assert pixels.shape == (2, 3, 16, 16) and model.encode_pictures(pixels).shape == x.shape
    if isinstance(model, Flux2 | QwenImage):
        mean, std = model.read_moments(x)
        assert mean.abs().max() > 0 and (std - 1).abs().max() > 0


@pytest.mark.parametrize("kind", MODELS)
def test_an_embedding_stands_for_the_texts_tokens(kind: str) -> None:
    model = MODELS[kind]()
    cat = model.encode(["a cat"])
    own = model.encode([Prompt("a dog", cat.tokens[0])])
    assert torch.equal(own.tokens, cat.tokens)
    with pytest.raises(ValueError, match=r"an embedding for tiny-.* is \(\d+, \d+\), got \(3,\)"):
        model.encode([Prompt("", torch.zeros(3))])
    with pytest.raises(ValueError, match="a language model within a template"):
        model.tokenize(["a cat"])


@pytest.mark.parametrize("kind", MODELS)
def test_a_prompt_that_is_cut_is_told(kind: str) -> None:
    with pytest.warns(UserWarning, match="1 prompt exceeds .* tokens and loses its end"):
        MODELS[kind]().encode(["a cat", "red " * 60])


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (tiny_sana_pipeline, Sana),
        (tiny_z_image_pipeline, ZImage),
        (tiny_qwen_image_pipeline, QwenImage),
        (tiny_flux2_pipeline, Flux2),
        (lambda: tiny_flux2_pipeline(klein=True), Flux2),
    ],
)
def test_it_opens_from_memory_and_is_written(make: Callable[[], Any], kind: type, tmp_path: Any) -> None:
    model = efface.load(make())
    assert isinstance(model, kind) and model.space == "flow"
    model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "model_index.json").is_file()


def test_pictures_larger_than_the_networks_table_of_positions_are_refused() -> None:
    """Drawing would end in an IndexError; a folder does not keep the pipeline's own size."""
    pipeline = tiny_z_image_pipeline()
    pipeline.default_sample_size = 256
    with pytest.raises(ValueError, match=r"draws 128 x 128 patches, .* has positions for 64 x 64 .*; 128 or more"):
        ZImage(pipeline, "tiny-z-image")
    pipeline.default_sample_size = 128
    assert ZImage(pipeline, "tiny-z-image").latent_shape[1] == 128
