"""What training takes on models of published sizes, from the shapes of their tensors: no weight exists, none is read.

`python tests/planning/real_sizes.py` prints the table of docs/models.md. Configurations are those of the published
models; tokenizers are tiny ones padded to the models' lengths, for a plan asks for no words.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from efface.concept import Erasure
from efface.methods.compose import Compose
from efface.models.adapters.flux import Flux
from efface.models.adapters.sd import StableDiffusion
from efface.models.adapters.sd3 import StableDiffusion3
from efface.models.adapters.sdxl import StableDiffusionXL
from efface.models.base import CASTS, Model
from efface.planning.machine import format_size
from efface.planning.plan import SPARE
from efface.planning.probe_steps import find_peak
from efface.planning.shapes import measure_drawing_shapes, measure_step_shapes
from efface.planning.tracker import count_bytes
from tiny import tiny_tokenizer
from tiny_pixart import tiny_t5_tokenizer

GPUS = (24, 48, 80)
CLIP_L: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
CLIP_L |= {"num_attention_heads": 12, "projection_dim": 768, "vocab_size": 49408}
CLIP_G: dict[str, Any] = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
CLIP_G |= {"num_attention_heads": 20, "projection_dim": 1280, "vocab_size": 49408, "hidden_act": "gelu"}


def build_tokenizer(length: int = 77) -> Any:
    made = tiny_tokenizer()
    made.model_max_length = length
    return made


def build_t5() -> T5EncoderModel:
    """T5-XXL's encoder."""
    config = T5Config(vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)
    config.feed_forward_proj, config.is_gated_act, config.dense_act_fn = "gated-gelu", True, "gelu_new"
    return T5EncoderModel(config)


def build_t5_tokenizer(length: int) -> Any:
    made = tiny_t5_tokenizer()
    made.model_max_length = length
    return made


def build_vae(channels: int, **more: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        **more,
    )


def build_noise_scheduler() -> DDIMScheduler:
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


def build_sd15() -> Any:
    unet = UNet2DConditionModel(cross_attention_dim=768, sample_size=64, attention_head_dim=8)
    return StableDiffusionPipeline(
        vae=build_vae(4),
        text_encoder=CLIPTextModel(CLIPTextConfig(**CLIP_L)),
        tokenizer=build_tokenizer(),
        unet=unet,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def build_sdxl() -> Any:
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        use_linear_projection=True,
        cross_attention_dim=2048,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return StableDiffusionXLPipeline(
        vae=build_vae(4, scaling_factor=0.13025),
        text_encoder=CLIPTextModel(CLIPTextConfig(**CLIP_L)),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_G)),
        tokenizer=build_tokenizer(),
        tokenizer_2=build_tokenizer(),
        unet=unet,
        scheduler=None,
        add_watermarker=False,
    )


def build_sd35() -> Any:
    """3.5-medium."""
    transformer = SD3Transformer2DModel(
        sample_size=128,
        patch_size=2,
        in_channels=16,
        num_layers=24,
        attention_head_dim=64,
        num_attention_heads=24,
        joint_attention_dim=4096,
        caption_projection_dim=1536,
        pooled_projection_dim=2048,
        out_channels=16,
        pos_embed_max_size=384,
        dual_attention_layers=tuple(range(13)),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=None,
        vae=build_vae(16, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_L)),
        tokenizer=build_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_G)),
        tokenizer_2=build_tokenizer(),
        text_encoder_3=build_t5(),
        tokenizer_3=build_t5_tokenizer(512),
    )


def build_flux() -> Any:
    """FLUX.1-dev."""
    return FluxPipeline(
        transformer=FluxTransformer2DModel(guidance_embeds=True),
        scheduler=None,
        vae=build_vae(16, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=CLIPTextModel(CLIPTextConfig(**CLIP_L)),
        tokenizer=build_tokenizer(),
        text_encoder_2=build_t5(),
        tokenizer_2=build_t5_tokenizer(512),
    )


MODELS: dict[str, tuple[Callable[[], Any], Any, Callable[[], Any]]] = {
    "SD 1.5": (build_sd15, StableDiffusion, build_noise_scheduler),
    "SDXL": (build_sdxl, StableDiffusionXL, build_noise_scheduler),
    "SD3.5-medium": (build_sd35, StableDiffusion3, lambda: FlowMatchEulerDiscreteScheduler(shift=3.0)),
    "FLUX.1-dev": (build_flux, Flux, lambda: FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)),
}
"""How each is made: its parts, its adapter and its scheduler, which has numbers."""


def build_shaped(name: str) -> Model:
    """The model with weights in bf16 that have shapes and no numbers."""
    parts, adapter, scheduler = MODELS[name]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            pipeline = parts()
    finally:
        torch.set_default_dtype(before)
    pipeline.scheduler = scheduler()
    model = adapter(pipeline, name)
    model._fingerprint = dict.fromkeys(CASTS, "shapes alone")
    return model


@dataclass(frozen=True)
class Needs:
    """Bytes, of one row in bf16."""

    denoiser: int
    resting: int
    trained: int
    step: int
    checkpointed: int
    drawing: int


def measure(name: str) -> Needs:
    """What a low-rank update of the text's attention by ESD takes, with and without recomputed activations."""
    model = build_shaped(name)
    method = Compose(update_="low-rank", rank=16, batch=1, draw_steps=2, guidance=1.0, weights="xattn")
    trainer = method.build_trainer(model, Erasure(("cat",)))
    weights = model.weights
    own = [tensor for key, tensor in weights.items() if key.startswith(f"{model.denoiser}.")]
    rest = [tensor for key, tensor in weights.items() if not key.startswith(f"{model.denoiser}.")]
    trained = [tensor for learner in trainer.learners for tensor in learner.list_optimised()]
    step, network = find_peak(measure_step_shapes(trainer, 1)[0]), model.network
    network.enable_gradient_checkpointing()
    return Needs(
        count_bytes(own),
        count_bytes([*rest, *model.pipeline.vae.parameters()]),
        3 * count_bytes(trained),
        step,
        find_peak(measure_step_shapes(trainer, 1)[0]),
        find_peak(measure_drawing_shapes(model, 1)),
    )


def fit_in(needs: Needs, gpu: int) -> str:
    """The flags, the fewest that do, by which a training fits on a GPU of so many GiB; "no" where none do."""
    for flags, there, step in (
        ("as it is", needs.resting, needs.step),
        ("`--checkpointing`", needs.resting, needs.checkpointed),
        ("`--checkpointing --offload`", 0, needs.checkpointed),
    ):
        if SPARE * (needs.denoiser + there + needs.trained + max(step, needs.drawing)) <= gpu << 30:
            return flags
    return "no"


def format_row(name: str, needs: Needs) -> str:
    """A line of the table of docs/models.md."""
    sizes = (needs.denoiser, needs.resting, needs.trained, needs.step, needs.checkpointed, needs.drawing)
    return f"| {' | '.join([name, *map(format_size, sizes), *(fit_in(needs, gpu) for gpu in GPUS)])} |"


if __name__ == "__main__":
    for each in sys.argv[1:] or MODELS:
        print(format_row(each, measure(each)), flush=True)
