"""Tiny random models built from the real classes, without network."""

from __future__ import annotations

from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from efface.models.adapters.sd import StableDiffusion
from efface.models.trajectory import Defaults

WORDS = ("cat", "dog", "car", "tiger", "leopard", "apple", "tomato", "rose", "lion", "truck", "a", "red")


def tiny_tokenizer() -> CLIPTokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocab = {piece: i for i, piece in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    merges: list[tuple[str, str]] = []
    for word in WORDS[:10] + WORDS[11:]:
        left = word[0]
        for i, letter in enumerate(word[1:], start=1):
            right = letter if i < len(word) - 1 else f"{letter}</w>"
            if (left, right) not in merges:
                merges.append((left, right))
            left += right
            vocab.setdefault(left, len(vocab))
    vocab |= {"<|startoftext|>": len(vocab), "<|endoftext|>": len(vocab) + 1}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=8)


def tiny_autoencoder(channels: int = 4, **more: Any) -> AutoencoderKL:
    """A random autoencoder of pictures 16 pixels a side in latents of half the side; `more` are further settings."""
    return AutoencoderKL(
        block_out_channels=(4, 8),
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **more,
    )


def tiny_pipeline(prediction: Literal["epsilon", "v_prediction"] = "epsilon", seed: int = 0) -> StableDiffusionPipeline:
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    ends: dict[str, Any] = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=8,
            projection_dim=16,
            pad_token_id=tokenizer.pad_token_id,
            **ends,
        )
    )
    # Random towers give all words nearly the same embedding; stretch the vocabulary so that words differ.
    with torch.no_grad():
        text_encoder.get_input_embeddings().weight.mul_(50)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
    )
    vae = tiny_autoencoder()
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def small_pipeline() -> StableDiffusionPipeline:
    """Of one level, for what takes long to read a network: a compiler, a counter of operations."""
    made = tiny_pipeline()
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    config = {**made.unet.config, **blocks, "block_out_channels": (8,), "mid_block_type": None}
    torch.manual_seed(0)
    made.unet = UNet2DConditionModel.from_config(config)
    return made


def tiny_model(prediction: Literal["epsilon", "v_prediction"] = "epsilon", seed: int = 0) -> StableDiffusion:
    return StableDiffusion(
        tiny_pipeline(prediction, seed), "tiny", defaults=Defaults(steps=4, guidance=3.0), words=WORDS
    )
