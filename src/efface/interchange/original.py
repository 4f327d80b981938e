"""Writes SD3 and FLUX.1 as one file in their authors' layout: the transformer, and for SD3 the autoencoder.

Text encoders are not part of it, as in the published files (`sd3.5_medium.safetensors`, `flux1-dev.safetensors`);
readers take them from elsewhere. Stable Diffusion 1.x, 2.x and XL are in `models/adapters/single_file.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..edits.edit import Edit
from ..files import write_tensors
from ..models import consumer
from ..models.adapters.single_file import UNET, VAE, name_in_vae
from ..models.base import Model
from ..plurals import write_count
from .checks import Check, Gap, Probe
from .names import name_native
from .reading import read_weights

PREFIXES = {"sd3": UNET, "flux": ""}
"""The prefix of the transformer's names, by architecture."""


def check_original(model: Model, edit: Edit) -> None:
    """Raises ValueError where the edit changes weights that such a file does not hold."""
    if other := sorted(name for name in edit.names if not name.startswith(f"{model.denoiser}.")):
        raise ValueError(
            f"a single file of the kind {model.architecture} holds the transformer and no text encoder, and the edit "
            f"changes {other[0]} ({write_count(len(other), 'such weight')}); --format diffusers writes a folder with "
            "all of it"
        )


@torch.no_grad()
def build_original(model: Model) -> dict[str, Tensor]:
    """The tensors of the file, with the edit that is applied, at the model's own precision.

    Raises:
        ValueError: a weight of the transformer has no name in the layout.
    """
    weights, prefix = model.weights, PREFIXES[model.architecture]
    out, held = {}, set()
    for name, stem in name_native(model).items():
        for leaf in ("weight", "bias"):
            own = [key for layer in stem.layers if (key := f"{layer}.{leaf}") in weights]
            if not own:
                continue
            whole = torch.cat([weights[key] for key in own])
            whole = torch.cat(whole.chunk(2)[::-1]) if stem.swapped else whole
            scale = model.architecture == "flux" and name.endswith("_norm")
            out[f"{prefix}{name}.{'scale' if scale else leaf}"] = whole
            held.update(own)
    if lost := sorted(key for key in weights if key.startswith(f"{model.denoiser}.") and key not in held):
        raise ValueError(f"{lost[0]!r} has no name in the original layout ({write_count(len(lost), 'such weight')})")
    if model.architecture == "sd3":
        network: Any = model.network
        out[f"{prefix}pos_embed"] = network.pos_embed.pos_embed
        out |= _name_autoencoder(model)
    return {name: tensor.detach().contiguous().cpu() for name, tensor in out.items()}


def _name_autoencoder(model: Model) -> dict[str, Tensor]:
    vae = model.pipeline.vae
    named = {}
    for name, tensor in vae.state_dict().items():
        new = name_in_vae(name, len(vae.config.block_out_channels))
        flat = ".mid.attn_1." in new and tensor.dim() == 2  # the original has convolutions of one pixel
        named[f"{VAE}{new}"] = tensor[:, :, None, None] if flat else tensor
    return named


def save_original(model: Model, path: Path, meta: Mapping[str, Any]) -> Path:
    """Writes the file, with the edit that is applied, whole or not at all."""
    return write_tensors(path, build_original(model), {**meta, "kind": "single file"})


def check_file(model: Model, edit: Edit, file: Path, strength: float, probe: Probe | None) -> Check:
    """Reads an exported file by diffusers' `from_single_file`, compares every weight, then pictures.

    diffusers reads FLUX.1 only at the published width; at another width the file is read as by `efface import`.

    Raises:
        ValueError: the reader gives a weight another value than was written.
    """
    pipeline = None
    if consumer.reads_original(model):
        pipeline = consumer.open_original(model, file)
        reader = f"diffusers' {type(pipeline.transformer).__name__}.from_single_file"
        theirs = consumer.name_weights(model, pipeline, model.denoiser)
    else:
        reader = "efface import, because diffusers reads only the published width"
        values, _ = read_weights(model, load_file(file))
        theirs = {**model.weights, **{name: value.to(model.device, model.dtype) for name, value in values.items()}}
    with edit.apply(model, strength):
        ours = {name: weight for name, weight in model.weights.items() if name.startswith(f"{model.denoiser}.")}
        if other := sorted(n for n in ours if n not in theirs or not torch.equal(theirs[n], ours[n])):
            raise ValueError(
                f"{reader} reads another {other[0]} than was written ({write_count(len(other), 'such weight')})"
            )
    if probe is None:
        return Check(reader, len(edit.names))
    base = probe.draw_by(model, consumer.share_pipeline(model.pipeline))
    with edit.apply(model, strength):
        edited = probe.draw_by(model, consumer.share_pipeline(model.pipeline))
    with model.swap_in({name: theirs[name] for name in edit.names}):
        read = probe.draw_by(model, pipeline or consumer.share_pipeline(model.pipeline))
    return Check(reader, len(edit.names), Gap.between(read, edited, base))
