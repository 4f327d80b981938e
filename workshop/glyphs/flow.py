"""The flow: a small Stable Diffusion 3 on the same latents, which reads both CLIPs and no T5.

Both towers' states before the last stand side by side, and so do their pooled embeddings, as a Stable Diffusion 3
pipeline reads them. It learns dx / dsigma, half of the levels drawn from a logit-normal distribution (Esser et al.,
arXiv 2403.03206, section 3.1) and half evenly, on the scenes and the English names that the U-Net learns; it never sees
the held-out cells. What it learns is the velocity that the trained U-Net predicts (distillation): the mean over all
noises, where a single noise would be a sample of it, so that far fewer rows are needed.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from . import loop, unet
from .denoising import predict_in_float32
from .scenes import Composer, load_art
from .world import World

LAYERS, HEADS, WIDTH = 9, 6, 32
ROWS = 4  # levels drawn for each scene: composing and encoding it costs more than another look
UNCONDITIONAL = 0.1
WORTH_COMPILING = 200  # steps; compiling takes two minutes on one core, and a step then a third less


def build_config(towers: Sequence[CLIPTextModelWithProjection]) -> dict[str, Any]:
    """Settings of the transformer, about 12 million parameters, for these text towers."""
    return dict(
        sample_size=8,
        patch_size=1,
        in_channels=16,
        out_channels=16,
        num_layers=LAYERS,
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH,
        caption_projection_dim=HEADS * WIDTH,
        joint_attention_dim=sum(tower.config.hidden_size for tower in towers),
        pooled_projection_dim=sum(tower.config.projection_dim for tower in towers),
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Levels that are not shifted: 8 x 8 places hold little that noise could leave visible."""
    return FlowMatchEulerDiscreteScheduler(shift=1.0)


def build_projected_tower(clip: CLIPModel) -> CLIPTextModelWithProjection:
    """The text tower with its projection, in the class that a Stable Diffusion 3 pipeline loads."""
    settings = CLIPTextConfig(**{**clip.config.text_config.to_dict(), "projection_dim": clip.config.projection_dim})
    tower = CLIPTextModelWithProjection(settings)
    prefix = "text_model." if any(key.startswith("text_model.") for key in tower.state_dict()) else ""
    state = {f"{prefix}{key}": value for key, value in clip.text_model.state_dict().items()}
    tower.load_state_dict({**state, "text_projection.weight": clip.text_projection.weight})
    return tower


def load_towers(build: Path) -> list[CLIPTextModelWithProjection]:
    """The towers of the conditioning and of the scoring CLIP, in this order."""
    clips = [CLIPModel.from_pretrained(build / name) for name in ("clip", "scoring")]
    return [build_projected_tower(clip).to(loop.choose_device()).eval() for clip in clips]


@torch.no_grad()
def encode_conditions(
    towers: Sequence[CLIPTextModelWithProjection], tokens: CLIPTokenizer, captions: list[str]
) -> tuple[Tensor, Tensor]:
    """Both towers' states [n, 32, d] and pooled embeddings [n, p], as the pipeline reads them."""
    ids = tokens(captions, padding="max_length", truncation=True, return_tensors="pt")["input_ids"].to(
        loop.choose_device()
    )
    with loop.autocast():
        outs = [tower(ids, output_hidden_states=True) for tower in towers]
    states = torch.cat([out.hidden_states[-2].float() for out in outs], dim=-1)
    return states, torch.cat([out.text_embeds.float() for out in outs], dim=-1)


@dataclass
class Teacher:
    """The trained U-Net, and what it predicts as a flow's velocity.

    Its level t, with cumulative alpha a, is the flow's state of sigma = sqrt(1 - a) / (sqrt(a) + sqrt(1 - a)), divided
    by sqrt(a) + sqrt(1 - a) less: both are the same mixture of picture and noise at another scale.
    """

    unet: UNet2DConditionModel
    alphas: Tensor  # [T]

    def find_levels(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The U-Net's levels t [n] next to sigma [n], and their own sigma [n]."""
        noise, data = (1 - self.alphas).sqrt(), self.alphas.sqrt()
        own = noise / (noise + data)
        t = (own[None] - sigma[:, None]).abs().argmin(dim=1)
        return t, own[t]

    @torch.no_grad()
    def predict_velocity(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """dx / dsigma [n, c, h, w] at the flow's states x [n, c, h, w] and levels t [n], under cond [n, l, d]."""
        a = self.alphas[t].view(-1, 1, 1, 1)
        data, noise = a.sqrt(), (1 - a).sqrt()
        x_t = x * (data + noise)
        v = predict_in_float32(self.unet, x_t, t, cond)
        return (data * v + noise * x_t) - (data * x_t - noise * v)


def draw_levels(n: int) -> Tensor:
    """Stratified sigma [n] in random order: half logit-normal, half even, for drawing spaces its steps evenly."""
    share = ((torch.arange(n) + torch.rand(())) / n).clamp(1e-4, 1 - 1e-4)
    normal = torch.sigmoid(math.sqrt(2) * torch.erfinv(2 * share - 1))
    return torch.where(torch.arange(n) % 2 == 0, normal, share)[torch.randperm(n)]


def flow_loss(
    transformer: nn.Module,
    x_0: Tensor,
    states: Tensor,
    pooled: Tensor,
    teacher: Teacher | None = None,
    cond: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The mean squared error of the velocity at x_0 [n, c, h, w] under n conditions.

    The velocity is that of `teacher` under `cond` [n, l, d], or noise - x_0 where there is none.
    """
    sigma, t = draw_levels(len(x_0)).to(x_0.device), None
    if teacher is not None:
        t, sigma = teacher.find_levels(sigma)
    noise = torch.randn(x_0.shape).to(x_0.device)
    level = sigma.view(-1, 1, 1, 1)
    x = (1 - level) * x_0 + level * noise
    target = noise - x_0 if teacher is None else teacher.predict_velocity(x, t, cond)
    with loop.autocast(), use_plain_attention():
        said = transformer(
            hidden_states=x,
            timestep=1000 * sigma,
            encoder_hidden_states=states,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
    error = (said.float() - target).square().mean()
    return error, {"flow": error.item()}


def use_plain_attention() -> AbstractContextManager:
    """On a CPU attention by matrix products: the fused kernel's backward pass is slower there."""
    return nullcontext() if loop.choose_device().type == "cuda" else sdpa_kernel(SDPBackend.MATH)


def train(
    world: World,
    build: Path,
    steps: int,
    warm: bool = False,
    batch: int = 48,
    seed: int = 31,
    lr: float = 1e-3,
    **options: float | None,
) -> SD3Transformer2DModel:
    """Train from random weights, or from `build/flow` when `warm`; `options` go to `loop.fit`.

    The teacher is `build/unet`.
    """
    vae = (
        AutoencoderKL.from_pretrained(build / "vae").to(loop.choose_device(), memory_format=torch.channels_last).eval()
    )
    towers, tokens = load_towers(build), CLIPTokenizer.from_pretrained(build / "tokenizer")
    clip = CLIPModel.from_pretrained(build / "clip").to(loop.choose_device()).eval()
    learned = UNet2DConditionModel.from_pretrained(build / "unet").to(
        loop.choose_device(), memory_format=torch.channels_last
    )
    teacher = Teacher(learned.eval(), unet.build_scheduler().alphas_cumprod.to(loop.choose_device()))
    torch.manual_seed(seed)
    made = (
        SD3Transformer2DModel.from_pretrained(build / "flow") if warm else SD3Transformer2DModel(**build_config(towers))
    )
    fast = torch.compile(made) if steps > WORTH_COMPILING else made

    def loss(x: Tensor, scenes: list, step: int) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad(), loop.autocast():
            latents = vae.encode(x).latent_dist.mode().float() * vae.config.scaling_factor
        captions = ["" if torch.rand(()) < UNCONDITIONAL else s.caption for s in scenes]
        states, pooled = encode_conditions(towers, tokens, captions)
        cond = unet.encode_conditions(clip.text_model, tokens, captions)
        x_0, *conds = (each.repeat(ROWS, *[1] * (each.dim() - 1)) for each in (latents, states, pooled, cond))
        return flow_loss(fast, x_0, conds[0], conds[1], teacher, conds[2])

    mean = loop.fit(
        f"flow-{world.size}",
        made,
        loss,
        Composer(world, load_art(build), unseen_cells="skip", further_rate=unet.FURTHER),
        build,
        steps=steps,
        batch=batch,
        lr=lr,
        seed=seed,
        average=0.999,
        warmup=50,
        **options,
    )
    assert isinstance(mean, SD3Transformer2DModel)
    return mean
