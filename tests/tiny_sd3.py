"""A tiny random Stable Diffusion 3 built from the real classes, without network."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel

from efface.models.adapters.sd3 import StableDiffusion3
from efface.models.trajectory import Defaults
from tiny import WORDS, tiny_autoencoder, tiny_tokenizer
from tiny_pixart import tiny_t5_tokenizer
from tiny_sdxl import build_text_config

WIDE = 32


def tiny_t5(wide: int = WIDE) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tiny_t5_tokenizer()),
        d_model=wide,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
    )
    return T5EncoderModel(config)


def tiny_vae(channels: int = 4, **more: Any) -> AutoencoderKL:
    return tiny_autoencoder(channels, **{"scaling_factor": 1.5305, "shift_factor": 0.0609, **more})


def tiny_clip(width: int, projection: int) -> CLIPTextModelWithProjection:
    encoder = CLIPTextModelWithProjection(build_text_config(width, num_hidden_layers=2, projection_dim=projection))
    # Random towers give all words nearly the same embedding; stretch the vocabulary so that words differ.
    with torch.no_grad():
        encoder.get_input_embeddings().weight.mul_(50)
    return encoder


def fill_zero_layers(transformer: Any) -> Any:
    """The transformer with weights in the layers that start as zeros, so that it predicts something."""
    with torch.no_grad():
        for parameter in transformer.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return transformer


def tiny_sd3_pipeline(seed: int = 0, t5: bool = True, dual: bool = True, **scheduler: Any) -> StableDiffusion3Pipeline:
    """`dual` has the first block attend to the picture twice, as 3.5-medium; `scheduler` are settings of that."""
    torch.manual_seed(seed)
    first, second = tiny_tokenizer(), tiny_tokenizer()
    second.pad_token = "q"
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDE,
        caption_projection_dim=16,
        pooled_projection_dim=8 + 12,
        pos_embed_max_size=8,
        dual_attention_layers=(0,) if dual else (),
        qk_norm="rms_norm" if dual else None,
    )
    pipeline = StableDiffusion3Pipeline(
        transformer=fill_zero_layers(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
        vae=tiny_vae(),
        text_encoder=tiny_clip(12, 8),
        tokenizer=first,
        text_encoder_2=tiny_clip(16, 12),
        tokenizer_2=second,
        text_encoder_3=tiny_t5() if t5 else None,
        tokenizer_3=tiny_t5_tokenizer() if t5 else None,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_sd3(seed: int = 0, t5: bool = True, dual: bool = True, **scheduler: Any) -> StableDiffusion3:
    pipeline = tiny_sd3_pipeline(seed, t5, dual, **scheduler)
    defaults = Defaults(steps=4, guidance=3.0, blank_tokens=3)
    return StableDiffusion3(pipeline, "tiny-sd3", defaults=defaults, words=WORDS)
