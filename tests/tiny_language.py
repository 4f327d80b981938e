"""Tiny random flows whose prompt a language model reads, built from the real pipelines, without network."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from efface.models.adapters.flux2 import Flux2
from efface.models.adapters.qwen_image import QwenImage
from efface.models.adapters.sana import Sana
from efface.models.adapters.z_image import ZImage
from efface.models.trajectory import Defaults
from tiny import WORDS
from tiny_flux import DEV
from tiny_sd3 import fill_zero_layers, tiny_vae

WIDE = 32
TEMPLATE = (
    "{% for m in messages %}<s>{% if m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text }}"
    "{% endif %}<e>{% endfor %}{% if add_generation_prompt %}<s>{% endif %}"
)


def tiny_language_tokenizer(begins: bool = False, room: int = 48) -> PreTrainedTokenizerFast:
    """Words with the space before them; every other run of letters is unknown. `begins` puts a token first."""
    words = [each for word in WORDS for each in (word, f" {word}")]
    vocab = {piece: i for i, piece in enumerate(["<pad>", "<unk>", "<b>", "<s>", "<e>", *words])}
    made = Tokenizer(WordLevel(vocab, unk_token="<unk>"))
    made.pre_tokenizer = Split(Regex(r"<.>| ?[a-z]+|[^a-z<]+"), "isolated")
    if begins:
        made.post_processor = TemplateProcessing(single="<b> $A", special_tokens=[("<b>", vocab["<b>"])])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", bos_token="<b>", model_max_length=room
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_language(seed: int = 0, wide: int = WIDE) -> Qwen3Model:
    """Three layers, for FLUX.2 stacks the states of three."""
    config = Qwen3Config(
        vocab_size=len(tiny_language_tokenizer()),
        hidden_size=wide,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=4,
    )
    encoder = Qwen3Model(config)
    with torch.no_grad():
        encoder.get_input_embeddings().weight.mul_(50)
    return encoder


def silence(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_sana_pipeline(euler: bool = False) -> SanaPipeline:
    torch.manual_seed(0)
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=WIDE,
        sample_size=8,
        patch_size=1,
    )
    vae = AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "ResBlock"),
        decoder_block_types=("ResBlock", "ResBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        upsample_block_type="interpolate",
        downsample_block_type="conv",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    solver = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0) if euler else DPMSolverMultistepScheduler(**solver)
    return silence(
        SanaPipeline(
            tokenizer=tiny_language_tokenizer(begins=True, room=14),
            text_encoder=tiny_language(),  # type: ignore[arg-type]
            vae=vae,
            transformer=fill_zero_layers(transformer),
            scheduler=scheduler,  # type: ignore[arg-type]
        )
    )


def tiny_z_image_pipeline() -> ZImagePipeline:
    torch.manual_seed(0)
    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDE,
        axes_dims=[4, 4, 8],
        axes_lens=[256, 64, 64],
    )
    pipeline = silence(
        ZImagePipeline(
            transformer=fill_zero_layers(transformer),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=tiny_vae(),
            text_encoder=tiny_language(),
            tokenizer=tiny_language_tokenizer(room=16),  # type: ignore[arg-type]
        )
    )
    pipeline.default_sample_size = 8
    return pipeline


def tiny_qwen_image_pipeline() -> QwenImagePipeline:
    torch.manual_seed(0)
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDE,
        axes_dims_rope=(4, 4, 8),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        attn_scales=[],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[2.0, 1.5, 0.5, 1.0],
    )
    pipeline = silence(
        QwenImagePipeline(
            transformer=fill_zero_layers(transformer),
            scheduler=FlowMatchEulerDiscreteScheduler(**DEV),
            vae=vae,
            text_encoder=tiny_language(),  # type: ignore[arg-type]
            tokenizer=tiny_language_tokenizer(room=20),  # type: ignore[arg-type]
        )
    )
    pipeline.default_sample_size = 8
    pipeline.prompt_template_encode, pipeline.prompt_template_encode_start_idx = "<s>a red<e><s>{}<e>", 5
    return pipeline


def tiny_flux2_pipeline(klein: bool = False, distilled: bool = False) -> Flux2Pipeline | Flux2KleinPipeline:
    torch.manual_seed(0)
    transformer = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDE,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=not klein,
    )
    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 8),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    with torch.no_grad():
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.5, 2)
    parts: dict[str, Any] = {
        "transformer": fill_zero_layers(transformer),
        "scheduler": FlowMatchEulerDiscreteScheduler(**DEV),
        "vae": vae,
        "text_encoder": tiny_language(),
        "tokenizer": tiny_language_tokenizer(room=12),
    }
    pipeline = silence(Flux2KleinPipeline(is_distilled=distilled, **parts) if klein else Flux2Pipeline(**parts))
    pipeline.default_sample_size = 8
    if not klein:
        pipeline.system_message = "red"
    return pipeline


FEW = Defaults(steps=4, guidance=3.0)


def tiny_sana(euler: bool = False) -> Sana:
    model = Sana(tiny_sana_pipeline(euler), "tiny-sana", defaults=FEW, words=WORDS)
    model.instruction = ["a red", "car "]
    return model


def tiny_z_image(name: str = "tiny-z-image") -> ZImage:
    defaults = FEW if "turbo" not in name else Defaults(steps=4, guidance=1.0)
    return ZImage(tiny_z_image_pipeline(), name, defaults=defaults, words=WORDS)


def tiny_qwen_image() -> QwenImage:
    return QwenImage(tiny_qwen_image_pipeline(), "tiny-qwen-image", defaults=FEW, words=WORDS)


def tiny_flux2(klein: bool = False, distilled: bool = False) -> Flux2:
    defaults = Defaults(steps=4, guidance=1.0) if distilled else FEW
    return Flux2(tiny_flux2_pipeline(klein, distilled), "tiny-flux2", defaults=defaults, words=WORDS)
