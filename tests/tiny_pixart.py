"""Tiny random PixArt models built from the real classes, without network."""

from __future__ import annotations

from typing import Literal

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from efface.models.adapters.pixart import PixArt
from efface.models.trajectory import Defaults
from tiny import WORDS, tiny_autoencoder

Version = Literal["alpha", "sigma"]
LENGTH = 10


def tiny_t5_tokenizer() -> T5Tokenizer:
    """Whole words, and letters for all else."""
    letters = [(letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    words = [(f"▁{word}", -2.0) for word in WORDS]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -5.0), *words, *letters]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=LENGTH)


def tiny_pixart_pipeline(
    version: Version = "alpha", seed: int = 0, sized: bool = False
) -> PixArtAlphaPipeline | PixArtSigmaPipeline:
    """`sized` has the network read the picture's size, as alpha at 1024 pixels does."""
    torch.manual_seed(seed)
    tokenizer = tiny_t5_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.0
    )
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=24,
        sample_size=8,
        patch_size=2,
        caption_channels=32,
        use_additional_conditions=sized,
        norm_type="ada_norm_single",
    )
    vae = tiny_autoencoder()
    kind = PixArtAlphaPipeline if version == "alpha" else PixArtSigmaPipeline
    scheduler = DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
    pipeline = kind(tokenizer, T5EncoderModel(config), vae, transformer, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_pixart(version: Version = "alpha", seed: int = 0, sized: bool = False) -> PixArt:
    pipeline = tiny_pixart_pipeline(version, seed, sized)
    return PixArt(pipeline, "tiny-pixart", defaults=Defaults(steps=4, guidance=3.0), words=WORDS)
