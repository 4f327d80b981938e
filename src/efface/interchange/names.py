"""The names that LoRA files give to the layers of a model.

- `lora` (diffusers, PEFT): the layer's own name behind its part of the pipeline, `unet.mid_block…attn2.to_k`.
- `kohya`: dots become underscores behind `lora_unet_`, `lora_te_`, `lora_te1_` …. Stable Diffusion 1.x and 2.x, Z-Image
  and Qwen-Image keep diffusers' names; SDXL, SD3, FLUX.1 and FLUX.2 have those of the original code, where q, k and v
  are one matrix.
- `comfy`: kohya's names; beside factors a file may hold exact differences, `.diff` of a weight and `.diff_b` of a bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import nn

from ..models.adapters.single_file import map_unet_names
from ..models.base import Model
from .formats import LoraFormat, check_architecture
from .native import map_flux2_names, map_flux_names, map_sd3_names, map_z_image_names

ENCODERS = {
    "sd": {"text_encoder": "te"},
    "sdxl": {"text_encoder": "te1", "text_encoder_2": "te2"},
    "sd3": {"text_encoder": "te1", "text_encoder_2": "te2", "text_encoder_3": "te3"},
    "flux": {"text_encoder": "te1", "text_encoder_2": "te3"},
}
"""kohya's names of the text encoders, by architecture."""
OWN_NAMES = ("sd", "z-image", "qwen-image")
"""Architectures whose kohya files call the denoiser's layers as diffusers does."""
IN_COMFY = ("diffusion_model.", "model.diffusion_model.")
"""What ComfyUI, and trainers that write for it, put before the names of the denoiser's layers."""


@final
@dataclass(frozen=True)
class Stem:
    """One layer of a file: one layer of the model, or several whose matrices are stacked in it."""

    layers: tuple[str, ...]
    """The layers' names, from the top down: a weight's checkpoint name without `.weight` or `.bias`."""
    swapped: bool = False
    """Whether the file has the second half of the rows first, because scale and shift have the other order there."""


def list_layers(model: Model) -> dict[str, nn.Module]:
    """The modules that hold the model's weights and biases, by layer name."""
    found = {name.rpartition("."): owner for name, owner in model.owners.items()}
    return {layer: owner for (layer, _, leaf), owner in found.items() if leaf in ("weight", "bias")}


def is_matrix(layer: Any) -> bool:
    """Whether a LoRA can change this module: a linear layer, or an ungrouped convolution."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def name_stems(model: Model, format: LoraFormat) -> dict[str, Stem]:
    """The names of the model's layers, norms and embeddings included, in a file of this format.

    Raises:
        ValueError: the format has no names for this architecture; the message says which architectures have.
    """
    layers = list_layers(model)
    if format == "lora":
        return {layer: Stem((layer,)) for layer in layers}
    check_architecture(format, model.architecture)
    plain = model.architecture in OWN_NAMES
    network = _strip(layers, model.denoiser) if plain else name_native(model)
    named = {f"lora_unet_{_flatten(name)}": stem for name, stem in network.items()}
    for part, short in ENCODERS.get(model.architecture, {}).items():
        named |= {f"lora_{short}_{_flatten(name)}": stem for name, stem in _strip(layers, part).items()}
    return named


def name_native(model: Model) -> dict[str, Stem]:
    """The names of the denoiser's layers in the architecture's original code, with dots.

    Raises:
        ValueError: no original names are known for the architecture, or for a layer.
    """
    own = list(_strip(list_layers(model), model.denoiser))
    if model.architecture in ("sd", "sdxl"):
        config: Any = model.network.config
        if not isinstance(config.layers_per_block, int):
            raise ValueError(f"{model.name} has levels of {config.layers_per_block} layers; original names know one")
        native = map_unet_names([f"{layer}.weight" for layer in own], config.layers_per_block)
        pairs = {new.removesuffix(".weight"): ((old.removesuffix(".weight"),), False) for old, new in native.items()}
    elif model.architecture in _STACKED:
        pairs = _STACKED[model.architecture](own)
    else:
        raise ValueError(f"no original names are known for a model of the kind {model.architecture}")
    return {
        name: Stem(tuple(f"{model.denoiser}.{layer}" for layer in stacked), swapped)
        for name, (stacked, swapped) in pairs.items()
    }


def name_all(model: Model) -> dict[str, Stem]:
    """All names that a LoRA file of some tool may give to a layer of this model."""
    layers = list_layers(model)
    own = _strip(layers, model.denoiser)
    named = {**name_stems(model, "lora"), **own}
    for prefix in IN_COMFY:
        named |= {f"{prefix}{name}": stem for name, stem in own.items()}
    for prefix in ("lora_unet_", "lora_transformer_", "lycoris_"):
        named |= {f"{prefix}{_flatten(name)}": stem for name, stem in own.items()}
    for part, short in ENCODERS.get(model.architecture, {}).items():
        for name, stem in _strip(layers, part).items():
            named |= {
                f"lora_{each}_{_flatten(name)}": stem
                for each in (short, "te", "te1")
                if each == short or part == "text_encoder"
            }
            named[f"{part}.{name.removeprefix('text_model.')}"] = stem
    if model.architecture in ENCODERS or model.architecture in _STACKED:
        native = name_native(model)
        named |= {f"lora_unet_{_flatten(name)}": stem for name, stem in native.items()}
        named |= {f"{prefix}{name}": stem for prefix in IN_COMFY for name, stem in native.items()}
        named = {**native, **named} if model.architecture in _STACKED else named
    return named


def _strip(layers: Mapping[str, Any], part: str) -> dict[str, Stem]:
    """The layers of one part of the pipeline, by their names within it."""
    return {layer.removeprefix(f"{part}."): Stem((layer,)) for layer in layers if layer.startswith(f"{part}.")}


def _flatten(name: str) -> str:
    return name.replace(".", "_")


_STACKED = {
    "sd3": map_sd3_names,
    "flux": map_flux_names,
    "flux2": map_flux2_names,
    "z-image": map_z_image_names,
}
"""Maps diffusers' names to those of the original code, where that stacks layers."""
