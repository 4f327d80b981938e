"""What a single-file checkpoint says about itself, by keys beside its weights and by its metadata.

`v_pred` and `ztsnr` are empty tensors by which fine-tuned XL models say that they predict v and start at pure noise;
`modelspec.*` and `ss_*` are the metadata of Stability's model specification and of kohya's trainers.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

EMA = "model_ema."
V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"
SPOKEN = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon", "eps": "epsilon"}
"""The names of the spaces of predictions in metadata, and diffusers' names for them."""


@dataclass(frozen=True)
class Claims:
    """What a file says about itself; None where it says nothing."""

    prediction: str | None
    """"epsilon" or "v_prediction"."""
    zero_snr: bool
    """Whether its schedule ends in pure noise."""
    ema: bool
    """Whether the file holds averaged (EMA) weights as well."""
    resolution: str | None
    """The size of pictures, such as "1024x1024"."""


def read_claims(file: str | Path) -> Claims:
    """Reads what a checkpoint says about itself.

    Raises:
        ValueError: the model was trained in a formulation that is not supported.
    """
    with safe_open(file, framework="pt") as opened:
        keys, told = set(opened.keys()), dict(opened.metadata() or {})
    if any(key.startswith("edm_") for key in keys):
        raise ValueError(
            f"{file} says that it was trained in EDM's formulation (its keys edm_…), which is not supported; "
            "a checkpoint that predicts noise or v by a schedule of timesteps would have worked"
        )
    spoken = SPOKEN.get(told.get("modelspec.prediction_type", "").lower())
    zero = ZERO_SNR in keys or told.get("ss_zero_terminal_snr", "").lower() == "true"
    v_key = V_PREDICTION in keys or told.get("ss_v_parameterization", "").lower() == "true"
    averaged = any(key.startswith(EMA) for key in keys)
    return Claims("v_prediction" if v_key else spoken, zero, averaged, told.get("modelspec.resolution"))


def build_claims(scheduler: Mapping[str, Any]) -> dict[str, Tensor]:
    """The keys, empty tensors, by which a checkpoint says what a scheduler's configuration says; `read_claims` reads
    them, and so do interfaces, which would take the network for one that predicts noise.
    """
    said = {V_PREDICTION: scheduler.get("prediction_type") == "v_prediction"}
    said[ZERO_SNR] = said[V_PREDICTION] and bool(scheduler.get("rescale_betas_zero_snr"))
    return {key: torch.empty(0) for key, holds in said.items() if holds}


def compare(file: str | Path, claims: Claims, scheduler: Mapping[str, Any], side: int, where: str) -> None:
    """Raises ValueError where the configuration contradicts the file, and warns where it may.

    Args:
        file: the checkpoint's name in errors.
        claims: what the checkpoint says about itself.
        scheduler: the configuration of the scheduler that it is opened with.
        side: pixels a side at which the configuration draws.
        where: the configuration's name in errors.
    """
    setting = "scheduler/scheduler_config.json of the folder that is named behind @"
    own = scheduler.get("prediction_type", "epsilon")
    if claims.prediction and claims.prediction != own:
        raise ValueError(
            f"{file} says that it predicts {claims.prediction}, and {where} says {own}: every picture would be wrong; "
            f'set "prediction_type": "{claims.prediction}" in {setting}'
        )
    if claims.zero_snr and not scheduler.get("rescale_betas_zero_snr"):
        raise ValueError(
            f"{file} says that its schedule ends in pure noise (ztsnr), and {where} does not; set "
            f'"rescale_betas_zero_snr": true and "timestep_spacing": "trailing" in {setting}'
        )
    if claims.ema:
        warnings.warn(
            f"{file} holds averaged weights ({EMA}) too; the plain ones are opened, as by diffusers", stacklevel=3
        )
    if claims.resolution and claims.resolution != f"{side}x{side}":
        warnings.warn(
            f"{file} says that it draws at {claims.resolution}, and {where} at {side}x{side}; sample_size in "
            "unet/config.json of the folder that is named behind @ decides",
            stacklevel=3,
        )


def describe_foreign(names: Collection[str]) -> str:
    """Says what a file holds that is no checkpoint in the original layout, and what helps; "" where that is unknown."""
    if _has_any(names, ("lora_", ".lora_", "hada_", "lokr_")):
        return (
            "is a LoRA, not a model: load it into a pipeline (pipe.load_lora_weights, pipe.fuse_lora, "
            "pipe.unload_lora_weights) and give that"
        )
    if all(name.startswith(EMA) or not name.startswith("model") for name in names) and _has_any(names, (EMA,)):
        return "holds averaged weights alone (model_ema.); a checkpoint with model.diffusion_model. would have worked"
    if _has_any(names, ("down_blocks.", "text_model.", "transformer_blocks.")):
        return "is one part of a diffusers folder; name the folder that holds model_index.json"
    return ""


def _has_any(names: Iterable[str], pieces: tuple[str, ...]) -> bool:
    return any(name.startswith(piece) or (piece[0] == "." and piece in name) for name in names for piece in pieces)
