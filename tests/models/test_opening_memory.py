"""Pipelines that come changed from memory: undone where nothing is lost, else refused with the call that helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from diffusers.models.attention_processor import AttnProcessor, PAGIdentitySelfAttnProcessor2_0
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import nn

import efface
from tiny import tiny_pipeline
from tiny_language import tiny_sana_pipeline
from tiny_pixart import tiny_pixart_pipeline
from tiny_sd3 import tiny_sd3_pipeline
from tiny_sdxl import tiny_sdxl_pipeline


def add_lora(module: nn.Module, path: str) -> None:
    """Layers under the names that peft gives them."""
    parent, _, leaf = path.rpartition(".")
    layer = nn.Module()
    layer.base_layer = module.get_submodule(path)
    layer.lora_A = nn.ModuleDict({"default": nn.Linear(4, 2, bias=False)})
    setattr(module.get_submodule(parent), leaf, layer)


def load_ip_adapter(pipeline: Any) -> None:
    """What `load_ip_adapter` does to the U-Net, from weights in memory."""
    unet: Any = pipeline.unet
    cross = [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith("attn2.processor")]
    wide = [unet.get_submodule(name).to_k.weight.shape for name in cross]
    keys = {f"{2 * i + 1}.to_{x}_ip.weight": torch.zeros(shape) for i, shape in enumerate(wide) for x in "kv"}
    norm = {"norm.weight": torch.ones(16), "norm.bias": torch.zeros(16)}
    projection = {"proj.weight": torch.zeros(64, 24), "proj.bias": torch.zeros(64), **norm}
    unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": keys}], low_cpu_mem_usage=False)


def forget(module: nn.Module, name: str) -> None:
    """A parameter that holds no values, as where offloading keeps them elsewhere."""
    parent, _, leaf = name.rpartition(".")
    own = module.get_parameter(name)
    setattr(module.get_submodule(parent), leaf, nn.Parameter(own.to("meta")))


def fill(parameter: torch.Tensor, value: float) -> None:
    with torch.no_grad():
        parameter.view(-1)[-1] = value


class Silent(AttnProcessor):
    """An attention processor of one's own."""


class Doubled(nn.Conv2d):
    """A layer whose class is nobody's but this test's."""


def skip_attention(pipeline: Any) -> None:
    """What perturbed-attention guidance leaves in a U-Net."""
    own = pipeline.unet.attn_processors
    pipeline.unet.set_attn_processor(
        {key: PAGIdentitySelfAttnProcessor2_0() if "attn1" in key else each for key, each in own.items()}
    )


def patch_forward(module: Any) -> None:
    own = module.forward
    module.forward = lambda *args, **kwargs: own(*args, **kwargs)


ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "LoRA in the unet": (lambda p: add_lora(p.unet, f"{ATTENTION}.to_q"), r"unet .*LoRA.*fuse_lora\(\).*unload_lora_w"),
    "LoRA in the text encoder": (
        lambda p: add_lora(p.text_encoder, "encoder.layers.0.self_attn.q_proj"),
        r"text_encoder .*LoRA.*unload_lora_weights\(\)",
    ),
    "IP-Adapter": (load_ip_adapter, r"IP-Adapter.*pipe\.unload_ip_adapter\(\)"),
    "fused projections": (lambda p: p.fuse_qkv_projections(vae=False), r"unet .*pipe\.unfuse_qkv_projections\(\)"),
    "fused projections of the autoencoder": (lambda p: p.fuse_qkv_projections(unet=False), "vae .*unfuse_qkv"),
    "offloaded": (lambda p: cpu_offload(p.unet, torch.device("cpu")), r"remove_all_hooks\(\).*offload=True"),
    "no values": (lambda p: forget(p.unet, "conv_in.weight"), r"unet of .* has no values for conv_in\.weight"),
    "a cache": (
        lambda p: p.unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32),
        "unet of .* has a hook of diffusers",
    ),
    "a compiled block": (
        lambda p: p.unet.register_module("conv_in", torch.compile(p.unet.conv_in)),
        r"holds a compiled module \(conv_in\).*compile=True",
    ),
    "parametrised": (
        lambda p: nn.utils.parametrizations.weight_norm(p.unet.conv_in),
        "parametrised weights; call .*remove_parametrizations",
    ),
    "FreeU": (lambda p: p.enable_freeu(0.9, 0.2, 1.2, 1.4), r"unet .*FreeU.*pipe\.disable_freeu\(\)"),
    "an attention processor": (
        lambda p: p.unet.set_attn_processor(Silent()),
        r"another kind \(Silent\).*pipe\.unet\.set_default_attn_processor\(\)",
    ),
    "perturbed attention": (skip_attention, r"another kind \(PAGIdentity.*set_default_attn_processor\(\)"),
    "a patched forward": (lambda p: patch_forward(p.unet.mid_block), "another forward than its class in mid_block"),
    "a hook": (
        lambda p: p.unet.conv_in.register_forward_hook(lambda *_: None),
        r"a hook in conv_in .*call remove\(\) of the handle",
    ),
    "a hook before": (lambda p: p.vae.register_forward_pre_hook(lambda *_: None), r"vae of .* a hook in vae"),
    "a class from elsewhere": (
        lambda p: setattr(p.unet.conv_out, "__class__", Doubled),
        r"a class from elsewhere \(.*Doubled, conv_out\)",
    ),
    "a quantizer": (lambda p: setattr(p.unet, "hf_quantizer", object()), "holds quantized weights"),
    "no scale of latents": (
        lambda p: p.vae.register_to_config(scaling_factor=None),
        r"scaling_factor None; a number above 0 .*register_to_config",
    ),
    "a flow's scheduler": (
        lambda p: setattr(p, "scheduler", FlowMatchEulerDiscreteScheduler()),
        r"trained on noise or v, and its scheduler \(FlowMatch.*takes it for a flow; give it .*or DDIMScheduler",
    ),
    "NaN": (lambda p: fill(p.unet.conv_out.bias, float("nan")), r"infinite or NaN weights, in conv_out\.bias"),
    "infinity": (lambda p: fill(p.text_encoder.get_input_embeddings().weight, float("inf")), "infinite or NaN weights"),
    "mixed dtypes": (
        lambda p: p.unet.mid_block.half(),
        r"unet .*mixes the dtypes float16, float32; call pipe\.unet\.to",
    ),
    "fp8": (lambda p: p.unet.to(torch.float8_e4m3fn), "as torch.float8_e4m3fn: quantized"),
    "another device": (lambda p: p.vae.to("meta"), "vae of .* has no values"),
    "a token without a row": (
        lambda p: p.tokenizer.add_tokens(["<toy>"]),
        r"token '<toy>' 90, and the text_encoder has rows for 90 tokens; call pipe\.text_encoder\.resize",
    ),
    "not square": (lambda p: p.unet.register_to_config(sample_size=[8, 12]), r"\[8, 12\]; .*register_to_config"),
    "no size": (lambda p: p.unet.register_to_config(sample_size=None), "draws at sample_size None"),
    "a class beside the prompt": (
        lambda p: p.unet.register_to_config(class_embed_type="timestep"),
        "reads a class",
    ),
    "betas beyond 1": (
        lambda p: setattr(p, "scheduler", DDIMScheduler(beta_start=0.5, beta_end=3.0)),
        "does not fall between 1 and 0 .* between 0 and 1 would have worked",
    ),
    "noise out of pure noise": (
        lambda p: setattr(p, "scheduler", DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing")),
        "predicts noise, and its scheduler begins at pure noise .*v_prediction",
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method")
@pytest.mark.parametrize("change", CHANGES)
def test_what_cannot_be_served_is_refused_with_the_call_that_helps(change: str) -> None:
    harm, message = CHANGES[change]
    pipeline = tiny_pipeline()
    harm(pipeline)
    with pytest.raises(ValueError, match=message):
        efface.load(pipeline)


@pytest.mark.parametrize("make", [tiny_sdxl_pipeline, tiny_pixart_pipeline])
def test_other_architectures_are_looked_at_too(make: Callable[[], Any]) -> None:
    pipeline = make()
    name, network = next((n, m) for n, m in pipeline.components.items() if n in ("unet", "transformer"))
    fill(next(network.parameters()), float("nan"))
    with pytest.raises(ValueError, match=f"{name} of .* infinite or NaN weights"):
        efface.load(pipeline)
    pipeline = make()
    pipeline.tokenizer.add_tokens(["<toy>"])
    with pytest.raises(ValueError, match="'<toy>'"):
        efface.load(pipeline)


def test_a_flow_under_a_scheduler_of_noise_is_refused() -> None:
    for make in (tiny_sd3_pipeline, tiny_sana_pipeline):
        pipeline = make()
        pipeline.scheduler = DDIMScheduler()
        with pytest.raises(
            ValueError, match=r"trained as a flow, and its scheduler \(DDIMScheduler\) takes it for one of"
        ):
            efface.load(pipeline)


def test_a_pipeline_that_has_drawn_before_opens() -> None:
    pipeline = tiny_sdxl_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline("a cat", num_inference_steps=1, output_type="latent")  # transformers puts hooks of its own
    assert drawn.images.isfinite().all()
    assert efface.load(pipeline).fingerprint() == efface.load(tiny_sdxl_pipeline()).fingerprint()


UNDONE = (
    ("IP-Adapter", "unload_ip_adapter"),
    ("fused projections", "unfuse_qkv_projections"),
    ("FreeU", "disable_freeu"),
)


def test_undoing_a_change_as_the_refusal_says_opens_the_very_model() -> None:
    plain = efface.load(tiny_pipeline())
    for change, undo in UNDONE:
        pipeline = tiny_pipeline()
        CHANGES[change][0](pipeline)
        getattr(pipeline, undo)()
        opened = efface.load(pipeline)
        assert opened.weights.keys() == plain.weights.keys()
        assert opened.fingerprint() == plain.fingerprint()
    pipeline = tiny_pipeline()
    cpu_offload(pipeline.unet, torch.device("cpu"))
    pipeline.remove_all_hooks()
    assert efface.load(pipeline).fingerprint() == plain.fingerprint()
