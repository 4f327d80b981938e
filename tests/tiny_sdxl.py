"""A tiny random Stable Diffusion XL built from the real classes, without network."""

from __future__ import annotations

from typing import Any, Literal

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from efface.models.adapters.sdxl import StableDiffusionXL
from efface.models.trajectory import Defaults
from tiny import WORDS, tiny_autoencoder, tiny_tokenizer


def build_text_config(width: int, **more: Any) -> CLIPTextConfig:
    tokenizer = tiny_tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **more,
    )


def tiny_sdxl_pipeline(
    prediction: Literal["epsilon", "v_prediction"] = "epsilon", seed: int = 0, silent: bool = True, **vae: Any
) -> StableDiffusionXLPipeline:
    """Three levels with attention of different depth, as the real one; `vae` are settings of the autoencoder."""
    torch.manual_seed(seed)
    first, second = tiny_tokenizer(), tiny_tokenizer()
    # Another than the first one's, as the real one; a letter of no word here, for it stands apart where it occurs.
    second.pad_token = "q"
    text_encoder = CLIPTextModel(build_text_config(16, num_hidden_layers=2, projection_dim=16))
    text_encoder_2 = CLIPTextModelWithProjection(
        build_text_config(24, num_hidden_layers=3, projection_dim=20, hidden_act="gelu")
    )
    # Random towers give all words nearly the same embedding; stretch the vocabulary so that words differ.
    with torch.no_grad():
        for encoder in (text_encoder, text_encoder_2):
            encoder.get_input_embeddings().weight.mul_(50)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 16),
        norm_num_groups=4,
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        attention_head_dim=(2, 4, 4),
        use_linear_projection=True,
        cross_attention_dim=16 + 24,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=20 + 6 * 8,
    )
    autoencoder = tiny_autoencoder(**{"scaling_factor": 0.13025, **vae})
    pipeline = StableDiffusionXLPipeline(
        vae=autoencoder,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=first,
        tokenizer_2=second,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
            prediction_type=prediction,
        ),
        force_zeros_for_empty_prompt=silent,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_sdxl(
    prediction: Literal["epsilon", "v_prediction"] = "epsilon", seed: int = 0, silent: bool = True, **vae: Any
) -> StableDiffusionXL:
    pipeline = tiny_sdxl_pipeline(prediction, seed, silent, **vae)
    return StableDiffusionXL(pipeline, "tiny-xl", defaults=Defaults(steps=4, guidance=3.0), words=WORDS)
