"""Opens single-file checkpoints in the layout of the original code, and writes them from an edited model.

The file names weights as the CompVis and Stability repositories do: `model.diffusion_model.` for the U-Net,
`first_stage_model.` for the autoencoder, `cond_stage_model.` or, in XL, `conditioner.embedders.` for text encoders. It
holds no configuration, schedule or tokenizer: those come from a diffusers folder named beside it, or from the hub. By
the keys `v_pred` and `ztsnr` it says that the network predicts v, and that the schedule ends in pure noise.

A text encoder is written under OpenCLIP's names where its activation is OpenCLIP's (`gelu`: Stable Diffusion 2.x, the
second of XL), else under those of transformers' CLIP, because readers infer the activation from the names. OpenCLIP
keeps q, k and v in one tensor, and its projection transposed. Tensors that diffusers dropped are not written: the last
layer and projection of 2.x's encoder, `logit_scale`, the schedule's buffers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import SingleFileComponentError
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...files import parse_json, write_tensors
from ..base import Model
from ..opening.claims import build_claims, compare, describe_foreign, read_claims
from ..opening.pipeline import read_side
from ..opening.place import SUFFIX, is_pointer
from ..opening.stored import check_settings
from .sd import ClipDiffusion, StableDiffusion

UNET, VAE = "model.diffusion_model.", "first_stage_model."
SD, XL = "cond_stage_model.", "conditioner.embedders."

_STEMS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"conv_shortcut": "nin_shortcut"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_CLIP_LAYER = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def map_unet_names(names: Iterable[str], layers: int) -> dict[str, str]:
    """Maps diffusers' names to the original ones; `layers` is the configuration's `layers_per_block`.

    Original blocks are numbered consecutively: a level of the encoder has `layers` blocks and a downsampler, a level of
    the decoder `layers` + 1 blocks, the last of which holds the upsampler after its resnet and attention.
    """
    names = list(names)
    attends = {name.split(".")[1] for name in names if re.match(r"up_blocks\.\d+\.attentions\.", name)}
    return {name: _name_in_unet(name, layers + 1, attends) for name in names}


def _name_in_unet(name: str, level: int, attends: Collection[str]) -> str:
    stem, _, leaf = name.rpartition(".")
    match stem.split("."):
        case _ if stem in _STEMS:
            return f"{_STEMS[stem]}.{leaf}"
        case ["mid_block", "resnets", j, part] if part in _RESNET:
            return f"middle_block.{2 * int(j)}.{_RESNET[part]}.{leaf}"
        case ["mid_block", "attentions", j, *rest]:
            return f"middle_block.{2 * int(j) + 1}.{'.'.join([*rest, leaf])}"
        case ["down_blocks", i, "resnets", j, part] if part in _RESNET:
            return f"input_blocks.{int(i) * level + int(j) + 1}.0.{_RESNET[part]}.{leaf}"
        case ["down_blocks", i, "attentions", j, *rest]:
            return f"input_blocks.{int(i) * level + int(j) + 1}.1.{'.'.join([*rest, leaf])}"
        case ["down_blocks", i, "downsamplers", "0", "conv"]:
            return f"input_blocks.{int(i) * level + level}.0.op.{leaf}"
        case ["up_blocks", i, "resnets", j, part] if part in _RESNET:
            return f"output_blocks.{int(i) * level + int(j)}.0.{_RESNET[part]}.{leaf}"
        case ["up_blocks", i, "attentions", j, *rest]:
            return f"output_blocks.{int(i) * level + int(j)}.1.{'.'.join([*rest, leaf])}"
        case ["up_blocks", i, "upsamplers", "0", "conv"]:
            return f"output_blocks.{int(i) * level + level - 1}.{2 if i in attends else 1}.conv.{leaf}"
    raise _explain_unnamed(f"unet.{name}")


def name_in_vae(name: str, levels: int) -> str:
    """The original name of an autoencoder's parameter; its decoder numbers the `levels` from the picture inwards."""
    stem, _, leaf = name.rpartition(".")
    match stem.split("."):
        case ["quant_conv" | "post_quant_conv"] | ["encoder" | "decoder", "conv_in" | "conv_out"]:
            return name
        case [side, "conv_norm_out"]:
            return f"{side}.norm_out.{leaf}"
        case [side, "mid_block", "resnets", j, part] if part in _VAE_RESNET:
            return f"{side}.mid.block_{int(j) + 1}.{_VAE_RESNET[part]}.{leaf}"
        case [side, "mid_block", "attentions", "0", *rest] if (part := ".".join(rest)) in _VAE_ATTENTION:
            return f"{side}.mid.attn_1.{_VAE_ATTENTION[part]}.{leaf}"
        case ["encoder", "down_blocks", i, "resnets", j, part] if part in _VAE_RESNET:
            return f"encoder.down.{i}.block.{j}.{_VAE_RESNET[part]}.{leaf}"
        case ["encoder", "down_blocks", i, "downsamplers", "0", "conv"]:
            return f"encoder.down.{i}.downsample.conv.{leaf}"
        case ["decoder", "up_blocks", i, "resnets", j, part] if part in _VAE_RESNET:
            return f"decoder.up.{levels - 1 - int(i)}.block.{j}.{_VAE_RESNET[part]}.{leaf}"
        case ["decoder", "up_blocks", i, "upsamplers", "0", "conv"]:
            return f"decoder.up.{levels - 1 - int(i)}.upsample.conv.{leaf}"
    raise _explain_unnamed(f"vae.{name}")


def open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Converts a CLIP text encoder to OpenCLIP's format: q, k, v in one tensor, the projection [width, out]."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, _, leaf = name.rpartition(".")
        match stem.removeprefix("text_model.").split("."):
            case ["embeddings", "token_embedding"]:
                out["token_embedding.weight"] = tensor
            case ["embeddings", "position_embedding"]:
                out["positional_embedding"] = tensor
            case ["final_layer_norm"]:
                out[f"ln_final.{leaf}"] = tensor
            case ["text_projection"]:
                out["text_projection"] = tensor.T
            case ["encoder", "layers", i, "self_attn", "q_proj" | "k_proj" | "v_proj" as part]:
                fused = [tensors[f"{stem.removesuffix(part)}{x}_proj.{leaf}"] for x in "qkv"]
                out[f"transformer.resblocks.{i}.attn.in_proj_{leaf}"] = torch.cat(fused)
            case ["encoder", "layers", i, *rest] if (part := ".".join(rest)) in _CLIP_LAYER:
                out[f"transformer.resblocks.{i}.{_CLIP_LAYER[part]}.{leaf}"] = tensor
            case _:
                raise _explain_unnamed(f"text_encoder.{name}")
    return out


def _explain_unnamed(name: str) -> ValueError:
    return ValueError(f"{name!r} has no name in the original layout, which is for Stable Diffusion 1.x, 2.x and XL")


# Writing.


@torch.no_grad()
def rename_to_original(model: ClipDiffusion) -> dict[str, Tensor]:
    """The model's tensors, with the edit that is applied, by their names in the original layout."""
    weights, layers = model.weights, model.unet.config.layers_per_block
    if not isinstance(layers, int):
        raise ValueError(f"{model.name} has levels of {layers} layers; the original layout has one number for all")
    unet = _take_part(weights, "unet.")
    out = {f"{UNET}{new}": unet[name] for name, new in map_unet_names(unet, layers).items()}
    levels = len(model.vae.config.block_out_channels)
    for name, tensor in model.vae.state_dict().items():
        new = name_in_vae(name, levels)
        # diffusers has linear layers where the original has convolutions of one pixel.
        flat = ".mid.attn_1." in new and tensor.dim() == 2
        out[f"{VAE}{new}"] = tensor[:, :, None, None] if flat else tensor
    single = isinstance(model, StableDiffusion)
    for i, part in enumerate(("text_encoder",) if single else ("text_encoder", "text_encoder_2")):
        prefix, text = SD if single else f"{XL}{i}.", _take_part(weights, f"{part}.")
        opened = getattr(model.pipeline, part).config.hidden_act == "gelu"
        kind, tensors = ("model.", open_clip(text)) if opened else ("transformer.", text)
        out |= {f"{prefix}{kind}{name}": tensor for name, tensor in tensors.items()}
    return out


def save(model: Model, path: str | Path, meta: Mapping[str, Any]) -> Path:
    """Writes the model, with whatever edit is applied, at its own precision as one file, whole or not at all.

    Raises:
        ValueError: the name does not end as readers expect, or the model has no place in the original layout.
        FileExistsError: there is such a file.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"{path} is to be a single file; a name that ends in {SUFFIX} would have worked")
    if path.exists():
        raise FileExistsError(f"{path} exists; name a file that does not")
    if not isinstance(model, ClipDiffusion):
        raise ValueError(f"{model.name} is no Stable Diffusion 1.x, 2.x or XL; write it as a folder")
    tensors = rename_to_original(model) | build_claims(model.pipeline.scheduler.config)
    return write_tensors(path, tensors, {**meta, "kind": "single file"})


def _take_part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


# Opening.


def find_kind(file: str | Path) -> str:
    """The name of the class of pipeline whose weights a file holds.

    Raises:
        ValueError: there is no such file, or it holds no whole checkpoint in the original layout.
    """
    names = _read_names(file)
    found = [prefix for prefix in (UNET, VAE, SD, XL) if any(name.startswith(prefix) for name in names)]
    if found == [UNET, VAE, SD]:
        return "StableDiffusionPipeline"
    if found == [UNET, VAE, XL] and any(name.startswith(f"{XL}1.") for name in names):
        return "StableDiffusionXLPipeline"
    if foreign := describe_foreign(names):
        raise ValueError(f"{file} {foreign}")
    raise ValueError(
        f"{file} holds no whole checkpoint in the original layout of Stable Diffusion 1.x, 2.x or XL: "
        f"names beginning {UNET}, {VAE} and {SD} (or {XL}1.) would have worked, the first is {min(names, default='')!r}"
    )


def open_file(file: str | Path, config: str = "") -> Any:
    """The pipeline of a file; `config` is a diffusers folder or hub id, by default the hub's for this architecture.

    The default treats any 2.x as 2.1, which predicts v; name the configuration of 2-base for one that predicts eps.

    Raises:
        ValueError: no configuration is available, the file does not fit it, or the file's metadata contradict it.
    """
    hint = f"name a diffusers folder of the same architecture, with or without weights: {file}@FOLDER"
    where = config or "the configuration on the hub"
    claims = read_claims(file)
    if config and Path(config).is_dir():
        check_settings(Path(config))
    try:
        if find_kind(file) == "StableDiffusionXLPipeline":
            pipeline = StableDiffusionXLPipeline.from_single_file(
                str(file), config=config or None, local_files_only=True, add_watermarker=False
            )
        else:
            pipeline = StableDiffusionPipeline.from_single_file(
                str(file), config=config or None, local_files_only=True, requires_safety_checker=False
            )
    except OSError as error:
        raise ValueError(f"{file} needs a configuration and a tokenizer, and none is available; {hint}") from error
    except NotImplementedError as error:  # moving a layer that no tensor has filled
        raise ValueError(f"{file} does not fit {where}: it lacks tensors; {hint}") from error
    except (SingleFileComponentError, ValueError, RuntimeError, KeyError) as error:
        raise ValueError(f"{file} does not fit {where}: {error}; {hint}") from error
    if amiss := _describe_misfit(pipeline, file):
        raise ValueError(f"{file} does not fit {where}: it {amiss}; {hint}")
    side = (read_side(pipeline.unet.config.sample_size) or 0) * pipeline.vae_scale_factor
    compare(file, claims, pipeline.scheduler.config, side, where)
    return pipeline


def _describe_misfit(pipeline: Any, file: str | Path) -> str:
    """Names the weights that no tensor filled and the U-Net's tensors that were not read; "" where there are none."""
    empty = [
        f"{part}.{name}"
        for part, module in pipeline.components.items()
        if isinstance(module, torch.nn.Module)
        for name, parameter in module.named_parameters()
        if parameter.is_meta
    ]
    wanted = map_unet_names(
        [name for name, _ in pipeline.unet.named_parameters()], pipeline.unet.config.layers_per_block
    )
    spare = {name for name in _read_names(file) if name.startswith(UNET)} - {
        f"{UNET}{name}" for name in wanted.values()
    }
    named = (("lacks", empty), ("holds unread", sorted(spare)))
    return " and ".join(f"{what} {names[0]} ({len(names)} such)" for what, names in named if names)


def _holds_edit(record: str) -> bool:
    """Whether efface's record of a file says that it is an edit; that of an exported model names the edits within."""
    try:
        found = parse_json(record or "{}", finite=False)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("kind") == "edit"


def _read_names(file: str | Path) -> list[str]:
    if not Path(file).is_file():
        raise ValueError(f"no file {file}; a single-file checkpoint, a diffusers folder or a hub id would have worked")
    if is_pointer(Path(file)):
        raise ValueError(f"{file} is a git-lfs pointer, not the weights: run git lfs pull there, or fetch it again")
    try:
        with safe_open(file, framework="pt") as opened:
            names, record = list(opened.keys()), (opened.metadata() or {}).get("efface", "")
    except SafetensorError as error:
        raise ValueError(f"{file} is truncated or no safetensors file ({error}); fetch it again") from error
    if _holds_edit(record):
        raise ValueError(f"{file} is an edit and no model; open the model that it was made for, and give it as --edit")
    return names
