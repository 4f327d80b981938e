"""A tiny random class-conditional pixel model, built from the real classes."""

from __future__ import annotations

from typing import Literal

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from efface.models.adapters.ddpm import DDPM
from efface.models.trajectory import Defaults

CLASSES = ("cat", "dog", "hot dog", "Rose", "red car")


def tiny_unet(seed: int = 0) -> UNet2DModel:
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=len(CLASSES) + 1,
    ).eval()


def tiny_ddpm(prediction: Literal["epsilon", "v_prediction"] = "epsilon", seed: int = 0) -> DDPM:
    pipeline = DDPMPipeline(tiny_unet(seed), DDPMScheduler(prediction_type=prediction))
    return DDPM(pipeline, CLASSES, "tiny", defaults=Defaults(steps=4, guidance=2.0))
