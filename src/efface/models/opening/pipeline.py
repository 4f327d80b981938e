"""Checks a pipeline before anything is drawn, wherever it comes from.

Changes that can be undone without a loss are undone: compiled modules are unwrapped, and what a fused projection left
behind is removed. A pipeline on which an edit would be wrong, or whose first drawing would fail, is refused, and the
message names the call that helps.
"""

from __future__ import annotations

import copy
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .alterations import check_alterations
from .text import check_text


class _EmptyWarning(logging.Filter):
    """Drops the warning that no module has to stay in fp32."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "should be kept in float32: []" not in record.getMessage()


DENOISERS = ("unet", "transformer")
LORA = re.compile(r"(^|\.)(lora_\w+|base_layer|hada_\w+|lokr_\w+|oft_\w+|lora_layer)(\.|$)")
FUSED = ("to_qkv", "to_kv", "to_added_qkv")
"""The modules that fusing adds to an attention layer: concatenated copies of its projections."""
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LARGEST = 8192
"""The largest number of pixels a side."""


def check_pipeline(pipeline: Any, name: str, packed: Sequence[str] = ()) -> Any:
    """The pipeline, ready to be drawn from: the one given, or a shallow copy whose parts are unwrapped.

    Args:
        pipeline: a diffusers pipeline with all that it needs; parts that are None are not checked.
        name: its name in errors.
        packed: parts that were quantised when they were opened, whose packed weights can't be checked.

    Raises:
        ValueError: it was changed in a way that is not supported, or its parts or numbers do not fit; the message says
            which call, flag or file helps.
    """
    pipeline = unwrap(pipeline)
    parts = list_modules(pipeline)
    check_hooks(pipeline, name)
    for check in CHECKS:
        for part, module in parts.items():
            if part not in packed or check not in (_check_numbers, check_alterations):
                check(name, part, module)
    _check_devices(name, parts)
    _check_size(name, pipeline, parts)
    _check_scale(name, pipeline)
    check_text(name, pipeline)
    return pipeline


def cast_pipeline(pipeline: Any, device: str | torch.device, dtype: torch.dtype) -> Any:
    """The pipeline on the device, with all its weights in one dtype.

    diffusers warns of modules that should stay in fp32 also where its list of them is empty; only that is silenced.
    """
    log, silence = logging.getLogger("diffusers.models.modeling_utils"), _EmptyWarning()
    log.addFilter(silence)
    try:
        return pipeline.to(device, dtype)
    finally:
        log.removeFilter(silence)


def list_modules(pipeline: Any) -> dict[str, nn.Module]:
    """The parts that hold weights, by name."""
    return {part: module for part, module in pipeline.components.items() if isinstance(module, nn.Module)}


def unwrap(pipeline: Any) -> Any:
    """Unwraps the parts that torch.compile wrapped, in a shallow copy of the pipeline if there are any."""
    wrapped = {part: module for part, module in list_modules(pipeline).items() if hasattr(module, "_orig_mod")}
    if not wrapped:
        return pipeline
    plain = copy.copy(pipeline)
    for part, module in wrapped.items():
        setattr(plain, part, module._orig_mod)
    return plain


def check_hooks(pipeline: Any, name: str) -> None:
    """Raises ValueError for offloading, which moves weights away between calls, and for caches of predictions."""
    for part, module in list_modules(pipeline).items():
        _check_hooks(name, part, module)


def _check_hooks(name: str, part: str, module: nn.Module) -> None:
    spread = len(set(map(str, (getattr(module, "hf_device_map", None) or {}).values()))) > 1
    if spread or any(hasattr(each, "_hf_hook") for each in module.modules()):
        raise ValueError(
            f"{part} of {name} is offloaded by accelerate; call pipe.remove_all_hooks() (after device_map: "
            'pipe.reset_device_map()) and pipe.to("cuda"), and give efface.load(pipe, offload=True) instead'
        )
    hooks = [key for each in module.modules() for key in getattr(getattr(each, "_diffusers_hook", None), "hooks", {})]
    if hooks:
        raise ValueError(
            f"{part} of {name} has a hook of diffusers ({hooks[0]}): a cache, offloading by groups or casting layer by "
            f"layer; call pipe.{part}.disable_cache(), or open the pipeline anew without it"
        )


def _check_adapters(name: str, part: str, module: nn.Module) -> None:
    """Refuses LoRA layers, which wrap the weights, and IP-Adapters, which need a picture for every prompt."""
    if any(LORA.search(key) for key, _ in module.named_parameters()) or getattr(module, "peft_config", None):
        raise ValueError(
            f"{part} of {name} has a LoRA (or another adapter) loaded: call pipe.fuse_lora() and then "
            "pipe.unload_lora_weights() to keep it in the weights, or pipe.unload_lora_weights() to do without"
        )
    kinds = {type(each).__name__ for each in getattr(module, "attn_processors", {}).values()}
    config = getattr(module, "config", {})
    asks = config.get("encoder_hid_dim_type") if isinstance(config, Mapping) else None
    if asks == "ip_image_proj" or any("IPAdapter" in kind for kind in kinds):
        raise ValueError(
            f"{name} has an IP-Adapter loaded, which asks for a picture beside each prompt: "
            "call pipe.unload_ip_adapter() before opening it"
        )
    if any(".parametrizations." in f".{key}" for key, _ in module.named_parameters()):
        raise ValueError(
            f"{part} of {name} has parametrised weights; call torch.nn.utils.parametrize.remove_parametrizations"
        )


def _check_compiled(name: str, part: str, module: nn.Module) -> None:
    if inner := [key for key, each in module.named_modules() if key and hasattr(each, "_orig_mod")]:
        raise ValueError(
            f"{part} of {name} holds a compiled module ({inner[0]}), whose weights have other names; open the pipeline "
            "without torch.compile, and give efface.load(pipe, compile=True) instead"
        )


def _check_fused(name: str, part: str, module: nn.Module) -> None:
    """Refuses fused projections, which read copies of the weights that no edit changes."""
    fused = [each for each in module.modules() if any(isinstance(getattr(each, key, None), nn.Module) for key in FUSED)]
    own = [each for each in fused if hasattr(each, "to_q") or hasattr(each, "add_q_proj")]
    if any("Fused" in type(getattr(each, "processor", None)).__name__ for each in own):
        raise ValueError(
            f"{part} of {name} has fused q, k, v projections: copies of weights, which an edit does not reach; "
            "call pipe.unfuse_qkv_projections() before opening it"
        )
    for each in own:  # unfuse_qkv_projections leaves these behind
        for key in FUSED:
            if isinstance(getattr(each, key, None), nn.Module):
                delattr(each, key)
        each.fused_projections = False  # type: ignore[assignment]


def _check_conditions(name: str, part: str, module: nn.Module) -> None:
    """Refuses a network that reads more than the prompt, which is none of a plain text-to-image pipeline."""
    config = getattr(module, "config", None)
    if part not in DENOISERS or not isinstance(config, Mapping):
        return
    pictures = ("text_image_proj", "image_proj")
    if config.get("encoder_hid_dim_type") in pictures or config.get("addition_embed_type") in (
        "text_image",
        "image",
        "image_hint",
    ):
        raise ValueError(f"the {part} of {name} reads pictures beside prompts; a text-to-image model would have worked")
    if part == "unet" and "cross_attention_dim" in config and config.get("class_embed_type") is not None:
        raise ValueError(
            f"the {part} of {name} reads a class ({config['class_embed_type']}) beside the prompt; a network without "
            "class_embed_type would have worked"
        )


def _check_numbers(name: str, part: str, module: nn.Module) -> None:
    """Demands that every weight has values, in floating point and finite."""
    for key, tensor in module.named_parameters():
        if tensor.is_meta:
            raise ValueError(
                f"{part} of {name} has no values for {key}: no file filled it, or it is offloaded; fetch the weights "
                "that belong to this configuration, or call pipe.remove_all_hooks()"
            )
        if tensor.dtype not in DTYPES:
            raise ValueError(
                f"{part} of {name} holds {key} as {tensor.dtype}: quantized weights can't be edited; open the pipeline "
                "in fp32, fp16 or bf16, or its folder with efface.load(folder, quantise=4)"
            )
        if tensor.numel() and not all(torch.isfinite(edge) for edge in torch.aminmax(tensor.detach())):
            raise ValueError(
                f"{part} of {name} has infinite or NaN weights, in {key}: the file is damaged, or overflows "
                "in fp16; fetch it again, or give --dtype fp32"
            )


CHECKS = (_check_adapters, _check_compiled, _check_fused, _check_conditions, _check_numbers, check_alterations)
"""What is looked at in each part, in this order: the more special cases come first."""


def _check_devices(name: str, parts: Mapping[str, nn.Module]) -> None:
    """Demands that all parts are on one device, and that the weights of each part have one dtype."""
    places = {part: tensor.device for part, module in parts.items() for tensor in [*module.parameters()][:1]}
    if len(set(places.values())) > 1:
        told = ", ".join(f"{part} on {place}" for part, place in places.items())
        raise ValueError(
            f'the parts of {name} lie on different devices ({told}); call pipe.to("cuda") or pipe.to("cpu")'
        )
    for part, module in parts.items():
        kept = tuple(getattr(module, "_keep_in_fp32_modules", None) or ())
        found = {p.dtype for key, p in module.named_parameters() if not any(keep in key for keep in kept)}
        if len(found) > 1:
            told = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
            raise ValueError(
                f"{part} of {name} mixes the dtypes {told}; call pipe.{part}.to(torch.float32), or another"
            )


def _check_scale(name: str, pipeline: Any) -> None:
    """An autoencoder says by what its latents are scaled, unless it says so channel by channel."""
    config = getattr(getattr(pipeline, "vae", None), "config", None)
    if not isinstance(config, Mapping) or "scaling_factor" not in config or config.get("latents_std") is not None:
        return
    scale = config["scaling_factor"]
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise ValueError(
            f"the vae of {name} has scaling_factor {scale!r}; a number above 0 would have worked, 0.18215 for Stable "
            "Diffusion: set it in vae/config.json, or call pipe.vae.register_to_config(scaling_factor=0.18215)"
        )


def _check_size(name: str, pipeline: Any, parts: Mapping[str, nn.Module]) -> None:
    """Demands that the size of pictures is one number and not too large."""
    for part in DENOISERS:
        config = getattr(parts.get(part), "config", None)
        if not isinstance(config, Mapping) or "sample_size" not in config:
            continue
        size = read_side(config["sample_size"])
        if size is None:
            raise ValueError(
                f"{name} draws at sample_size {config['sample_size']!r}; one number, or two that are equal, would have "
                f"worked: set sample_size in {part}/config.json, or call pipe.{part}.register_to_config(sample_size=64)"
            )
        if size * int(getattr(pipeline, "vae_scale_factor", 1)) > LARGEST:
            raise ValueError(f"{name} draws at sample_size {size}; at most {LARGEST} pixels a side can be drawn")


def read_side(size: Any) -> int | None:
    """The side of square states from a configuration's `sample_size`, a number or two equal ones; else None."""
    if isinstance(size, list | tuple):
        size = size[0] if len(size) == 2 and size[0] == size[1] else None
    whole = isinstance(size, int) and not isinstance(size, bool)
    return size if whole and size > 0 else None
