"""The denoiser: v-prediction with min-SNR weights, conditioned on the frozen text tower of the first CLIP.

It learns English names only, and never sees the held-out cells.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from . import loop
from .denoising import v_loss
from .scenes import Composer, load_art
from .world import World

CONFIG = dict(
    sample_size=8,
    in_channels=16,
    out_channels=16,
    down_block_types=("CrossAttnDownBlock2D",) * 2,
    up_block_types=("CrossAttnUpBlock2D",) * 2,
    block_out_channels=(96, 192),
    layers_per_block=1,
    cross_attention_dim=192,
    attention_head_dim=4,  # in a U-Net of Stable Diffusion's class this is the number of heads
    norm_num_groups=16,
)
ROWS = 4  # noise levels drawn for each scene: composing and encoding it costs more than another look
UNCONDITIONAL = 0.1
FURTHER = 0.3  # of the scenes show a thing outside this world, so that styles are learned on more than sixty things


def build_scheduler() -> DPMSolverMultistepScheduler:
    """Noise up to a signal-to-noise ratio of 2.4e-4: at 8 x 8 latents more would leak the mean colour."""
    return DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.02,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,  # read by no trailing schedule; a pipeline warns of 0
    )


def encode_conditions(text, tokens: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Hidden states [n, 32, 192] of the text tower, as a Stable Diffusion pipeline reads them."""
    ids = tokens(captions, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    with torch.no_grad(), loop.autocast():
        return text(ids.to(loop.choose_device())).last_hidden_state.float()


def train(
    world: World,
    build: Path,
    steps: int,
    warm: bool = False,
    batch: int = 64,
    seed: int = 21,
    lr: float = 1e-3,
    **options: float | None,
) -> UNet2DConditionModel:
    """Train from random weights, or from `build/unet` when `warm`; `options` go to `loop.fit`."""
    vae = (
        AutoencoderKL.from_pretrained(build / "vae").to(loop.choose_device(), memory_format=torch.channels_last).eval()
    )
    clip = CLIPModel.from_pretrained(build / "clip").to(loop.choose_device()).eval()
    tokens = CLIPTokenizer.from_pretrained(build / "tokenizer")
    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_pretrained(build / "unet") if warm else UNet2DConditionModel(**CONFIG)
    if loop.choose_device().type == "cpu":
        unet.set_attn_processor(AttnProcessor())  # the fused kernel's backward pass is several times slower here
    alphas = build_scheduler().alphas_cumprod.to(loop.choose_device())

    def loss(x: Tensor, scenes: list, step: int) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad(), loop.autocast():
            latents = vae.encode(x).latent_dist.mode().float() * vae.config.scaling_factor
        captions = ["" if torch.rand(()) < UNCONDITIONAL else s.caption for s in scenes]
        cond = encode_conditions(clip.text_model, tokens, captions).repeat(ROWS, 1, 1)
        return v_loss(unet, alphas, latents.repeat(ROWS, 1, 1, 1), cond)

    composer = Composer(world, load_art(build), unseen_cells="skip", further_rate=FURTHER)
    mean = loop.fit(
        f"unet-{world.size}",
        unet,
        loss,
        composer,
        build,
        steps=steps,
        batch=batch,
        lr=lr,
        seed=seed,
        average=0.999,
        warmup=50,
        **options,
    )
    assert isinstance(mean, UNet2DConditionModel)
    mean.set_attn_processor(AttnProcessor2_0())
    return mean
