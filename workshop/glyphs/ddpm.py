"""The class-conditional model on pixels: 32 x 32, one thing a picture, of any style on any ground, both unspoken.

Noise and dropped conditions are those of EraseDiff's CIFAR-10 model (linear 1e-4 to 0.02, a tenth; arXiv 2401.05779).
It predicts v, not noise, with min-SNR weights: near the pure noise that drawing starts from, an error in eps weighs 150
times as much in the picture, and a short training in bfloat16 would lose the colour of the ground there.
"""

import dataclasses
from pathlib import Path
from typing import final

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DModel
from torch import Tensor

from . import loop
from .denoising import v_loss
from .scenes import Composer, Scene, load_art
from .world import load

WORLD = "tiny"
"""Its things are the classes, whatever the size of the world that the text-to-image model learns."""
SIDE = 32
CONFIG = dict(
    sample_size=SIDE,
    in_channels=3,
    out_channels=3,
    down_block_types=("DownBlock2D",) * 4,
    up_block_types=("UpBlock2D",) * 4,
    block_out_channels=(32, 64, 96, 128),  # most of the time goes into the widest pictures, most weights do not
    layers_per_block=1,
    attention_head_dim=32,
    norm_num_groups=8,
)
ROWS = 2  # noise levels drawn for each scene
UNCONDITIONAL = 0.1


def build_scheduler() -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def list_classes() -> list[str]:
    """Their names, in the order of the labels; the null class comes after."""
    return [thing.name for thing in load(WORLD).things]


@final
class Singles:
    """Scenes of a single thing at half the composer's size; where two things are in one, it draws again."""

    def __init__(self, composer: Composer) -> None:
        self.composer = composer

    def __call__(self, rng: np.random.Generator) -> Scene:
        scene = self.composer(rng)
        while len(scene.things) != 1:
            scene = self.composer(rng)
        pixels = scene.pixels.reshape(SIDE, 2, SIDE, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
        return dataclasses.replace(scene, pixels=pixels)


def train(
    build: Path, steps: int, warm: bool = False, batch: int = 32, seed: int = 31, lr: float = 1e-3, **options
) -> UNet2DModel:
    """Train from random weights, or from `build/ddpm` when `warm`; `options` go to `loop.fit`."""
    torch.manual_seed(seed)
    null = len(list_classes())
    fresh = UNet2DModel(**CONFIG, num_class_embeds=null + 1)
    unet = UNet2DModel.from_pretrained(build / "ddpm") if warm else fresh
    alphas = build_scheduler().alphas_cumprod.to(loop.choose_device())

    def loss(x: Tensor, scenes: list, step: int) -> tuple[Tensor, dict[str, float]]:
        named = torch.tensor([s.things[0] for s in scenes]).repeat(ROWS)
        labels = torch.where(torch.rand(len(named)) < UNCONDITIONAL, null, named).to(x.device)
        return v_loss(unet, alphas, x.repeat(ROWS, 1, 1, 1), labels)

    composer = Singles(Composer(load(WORLD), load_art(build)))
    mean = loop.fit(
        "ddpm", unet, loss, composer, build,
        steps=steps, batch=batch, lr=lr, seed=seed, average=0.998, warmup=50, **options,
    )  # fmt: skip
    assert isinstance(mean, UNet2DModel)
    return mean
