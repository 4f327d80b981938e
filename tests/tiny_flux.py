"""A tiny random FLUX.1 built from the real classes, without network."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel

from efface.models.adapters.flux import Flux
from efface.models.trajectory import Defaults
from tiny import WORDS, tiny_tokenizer
from tiny_pixart import tiny_t5_tokenizer
from tiny_sd3 import WIDE, fill_zero_layers, tiny_t5, tiny_vae
from tiny_sdxl import build_text_config

DEV: dict[str, Any] = {"shift": 3.0, "use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64}


def tiny_flux_pipeline(dev: bool = True, seed: int = 0) -> FluxPipeline:
    """dev, with its guidance embedding and its dynamic shift; or schnell."""
    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDE,
        pooled_projection_dim=12,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=dev,
    )
    encoder = CLIPTextModel(build_text_config(12, num_hidden_layers=2))
    with torch.no_grad():
        encoder.get_input_embeddings().weight.mul_(50)
    pipeline = FluxPipeline(
        transformer=fill_zero_layers(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(**(DEV if dev else {"shift": 1.0})),
        vae=tiny_vae(use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=encoder,
        tokenizer=tiny_tokenizer(),
        text_encoder_2=tiny_t5(),
        tokenizer_2=tiny_t5_tokenizer(),
    )
    pipeline.default_sample_size = 8
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_flux(dev: bool = True, seed: int = 0) -> Flux:
    defaults = Defaults(steps=4, guidance=3.5 if dev else 1.0)
    return Flux(tiny_flux_pipeline(dev, seed), "tiny-flux", defaults=defaults, words=WORDS)
