"""The autoencoder: 64 x 64 pixels to 8 x 8 latents of 16 channels."""

import math
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from . import loop
from .scenes import Composer, load_art
from .world import World

CONFIG = dict(
    in_channels=3,
    out_channels=3,
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(32, 32, 96, 128),
    layers_per_block=1,
    latent_channels=16,
    norm_num_groups=1,  # one run each: L1 0.32 after 70 steps, 0.38 with 16 groups
    sample_size=64,
    mid_block_add_attention=False,
)


NOISE = 0.1  # standard deviation of the latents, held fixed rather than learned


def gradient_loss(a: Tensor, b: Tensor) -> Tensor:
    """L1 between the finite differences of two pictures [n, 3, h, w]: keeps the edges."""
    return F.l1_loss(a.diff(dim=2), b.diff(dim=2)) + F.l1_loss(a.diff(dim=3), b.diff(dim=3))


def train(
    world: World,
    build: Path,
    steps: int,
    warm: bool = False,
    batch: int = 16,
    seed: int = 1,
    lr: float = 6e-4,
    **options,
) -> AutoencoderKL:
    """Train encoder and decoder, from `build/vae` when `warm`; every U-Net trained on the old latents is void then."""
    torch.manual_seed(seed)
    vae = AutoencoderKL.from_pretrained(build / "vae") if warm else AutoencoderKL(**CONFIG)
    module = vae.to(memory_format=torch.channels_last)

    def loss(x: Tensor, scenes: list, step: int) -> tuple[Tensor, dict[str, float]]:
        with loop.autocast():
            posterior = module.encode(x).latent_dist
            z = posterior.mean + NOISE * torch.randn_like(posterior.mean)
            y = module.decode(z).sample.float()
        l1 = F.l1_loss(y, x)
        size = posterior.mean.float().square().mean()
        spread = (posterior.logvar.float() - 2 * math.log(NOISE)).square().mean()
        value = l1 + F.mse_loss(y, x) + gradient_loss(y, x) + 1e-4 * size + 1e-3 * spread
        return value, {"l1": l1.item(), "size": size.item()}

    composer = Composer(world, load_art(build), none_rate=0.15)
    mean = loop.fit(
        "vae", module, loss, composer, build, steps=steps, batch=batch, lr=lr, seed=seed, average=0.99, **options
    )
    assert isinstance(mean, AutoencoderKL)
    return measure_scale(mean, composer)


def sharpen(
    world: World, build: Path, steps: int, batch: int = 16, seed: int = 2, lr: float = 5e-4, **options
) -> AutoencoderKL:
    """Train the decoder on, the encoder frozen: sharper pictures from the very latents that the U-Net learned."""
    vae = AutoencoderKL.from_pretrained(build / "vae").to(loop.choose_device(), memory_format=torch.channels_last)
    half = torch.nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv})

    def loss(x: Tensor, scenes: list, step: int) -> tuple[Tensor, dict[str, float]]:
        with loop.autocast():
            with torch.no_grad():
                mode = vae.encode(x).latent_dist.mode()
            z = mode + NOISE * torch.randn_like(mode)
            y = half["decoder"](half["post_quant_conv"](z)).float()
        l1 = F.l1_loss(y, x)
        return l1 + F.mse_loss(y, x) + gradient_loss(y, x), {"l1": l1.item()}

    composer = Composer(world, load_art(build), none_rate=0.15)
    mean = loop.fit(
        "decoder", half, loss, composer, build, steps=steps, batch=batch, lr=lr, seed=seed, average=0.99, **options
    )
    state = {f"{part}.{k}": v for part, module in mean.items() for k, v in module.state_dict().items()}
    vae.load_state_dict(state, strict=False)
    return vae.eval()


def measure_scale(vae: AutoencoderKL, composer: Composer) -> AutoencoderKL:
    """Set `scaling_factor` so that the latents have unit variance, as Stable Diffusion's do."""
    import numpy as np

    rng = np.random.default_rng(0)
    data = np.stack([composer(rng).pixels for _ in range(256)]).transpose(0, 3, 1, 2).copy()
    with torch.no_grad(), loop.autocast():
        latents = vae.encode(loop.scale_pixels(data)).latent_dist.mode().float()
    print(f"latents: mean {latents.mean():.3f} std {latents.std():.3f}")
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return vae
