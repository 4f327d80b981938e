"""Pipelines of the sizes of Stable Diffusion 1.5 and SDXL with random weights, on which speed and memory do not depend.

Shapes are those of the published configurations. The tokenizer is the embedded model's, as words do not matter here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from efface.models.loading import BUNDLED

from .text_shapes import give_numbers

Size = Literal["sd", "sdxl"]
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def build_pipeline(
    size: Size, pixels: int, device: str, dtype: torch.dtype, shapes: AbstractContextManager[Any] | None = None
) -> Any:
    """A pipeline whose latents are pixels / 8 a side, made on the device at this dtype; laid out as `load` does.

    `shapes` is a mode of PyTorch in which all networks are made without numbers; what text encoders give has numbers.
    """
    torch.manual_seed(0)
    with _make(device, dtype):
        made = (_build_sd if size == "sd" else _build_sdxl)(pixels // 8, nullcontext() if shapes is None else shapes)
    if shapes is not None:
        for encoder in (made.text_encoder, getattr(made, "text_encoder_2", None)):
            if encoder is not None:
                give_numbers(encoder)
    if device.startswith("cuda"):
        made.unet.to(memory_format=torch.channels_last)
    return made


def small_pipeline(size: Size, dtype: torch.dtype) -> Any:
    """A small pipeline of the same classes, 16 pixels a side, on the CPU: every case of a benchmark runs on it.

    Weights are random, so that a picture shows nothing.
    """
    torch.manual_seed(0)
    unet: dict[str, Any] = {"sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1}
    unet |= {"attention_head_dim": 2, "cross_attention_dim": 32}
    unet["down_block_types"] = ("CrossAttnDownBlock2D", "DownBlock2D")
    unet["up_block_types"] = ("UpBlock2D", "CrossAttnUpBlock2D")
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    with _make("cpu", dtype):
        vae = AutoencoderKL(block_out_channels=(32, 32), latent_channels=4, sample_size=16, **blocks)
        text = {"vae": vae, "text_encoder": CLIPTextModel(_build_text(32, 1, 2)), "tokenizer": _build_tokenizer()}
        if size == "sd":
            scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **SCHEDULE)
            checks = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
            made: Any = StableDiffusionPipeline(
                unet=UNet2DConditionModel(**unet), scheduler=scheduler, **text, **checks
            )
        else:
            unet |= {"cross_attention_dim": 64, "addition_embed_type": "text_time", "addition_time_embed_dim": 8}
            unet |= {"use_linear_projection": True, "projection_class_embeddings_input_dim": 32 + 6 * 8}
            text |= {
                "text_encoder_2": CLIPTextModelWithProjection(_build_text(32, 1, 2)),
                "tokenizer_2": _build_tokenizer(),
            }
            scheduler = EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading")
            network = UNet2DConditionModel(**unet)
            made = StableDiffusionXLPipeline(unet=network, scheduler=scheduler, add_watermarker=False, **text)
    made.set_progress_bar_config(disable=True)
    return made


def _build_sd(side: int, shapes: AbstractContextManager[Any]) -> StableDiffusionPipeline:
    with shapes:
        unet = UNet2DConditionModel(
            sample_size=side, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280)
        )
        vae, text_encoder = _build_vae(side, 0.18215), CLIPTextModel(_build_text(768, 12, 12))
    made = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=_build_tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def _build_sdxl(side: int, shapes: AbstractContextManager[Any]) -> StableDiffusionXLPipeline:
    with shapes:
        unet = UNet2DConditionModel(
            sample_size=side,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
        vae, text_encoder = _build_vae(side, 0.13025), CLIPTextModel(_build_text(768, 12, 12))
        text_encoder_2 = CLIPTextModelWithProjection(_build_text(1280, 32, 20))
    made = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=_build_tokenizer(),
        tokenizer_2=_build_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading"),
        add_watermarker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def _build_vae(side: int, scale: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=side * 8,
        scaling_factor=scale,
    )


def _build_text(width: int, layers: int, heads: int) -> CLIPTextConfig:
    tokenizer = _build_tokenizer()
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _build_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(BUNDLED / "glyphs" / "model" / "tokenizer", model_max_length=77)


@contextmanager
def _make(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Makes modules inside the block on the device at this dtype, so that nothing is held twice."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)
