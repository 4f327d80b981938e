"""Reads what PEFT and diffusers write beside a LoRA's factors: by which number each product is multiplied.

The number is alpha / rank, or alpha / sqrt(rank) where the settings say `use_rslora` (Kalajdzievski, arXiv 2312.03732).
A LoRA that began with a part of the base's own weights (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) is trained on a base from
which this part was taken away, so that its factors are no change of the base.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import parse_json, read_json, refusing
from ..files.structured import shorten

PEFT = "base_model.model."
LARGEST = 1e30
"""An alpha of a LoRA must be smaller than this."""
TAKEN_AWAY = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""How the values of `init_lora_weights` begin by which PEFT changes the base's own weights."""


def add_alphas(tensors: Mapping[str, Tensor], header: Mapping[str, str], file: Path) -> dict[str, Tensor]:
    """Adds to the tensors the alphas that diffusers or PEFT write beside them, and not among them.

    A product is multiplied by alpha / rank, so that of settings with `use_rslora` the alpha becomes alpha * sqrt(rank).

    Raises:
        ValueError: the settings are damaged, or the LoRA was trained on changed weights of the base.
    """
    named = {key.removeprefix(PEFT): tensor for key, tensor in tensors.items()}
    source = file
    settings = parse_table(header.get("lora_adapter_metadata", "{}"), f"{file}: its lora_adapter_metadata")
    beside = file.with_name("adapter_config.json")
    if not settings and beside.is_file():
        source, settings = beside, require_table(read_json(beside), str(beside))
    for key in list(named) if settings else ():
        layer, found, _ = key.partition(".lora_A.")
        if not found:
            continue
        own = _take_part(settings, layer)
        _refuse_changed_base(own, file)
        if (alpha := _read_alpha(own, layer, source)) is not None:
            rank = len(named[key]) if named[key].dim() else 1
            named[f"{layer}.alpha"] = torch.tensor(alpha * rank**0.5 if own.get("use_rslora") else alpha)
    return named


def parse_table(text: str, what: str) -> dict[str, Any]:
    """A table from its JSON; raises ValueError, which names `what`, where it is damaged or no table."""
    with refusing(what, "damaged", "save it again"):
        found = parse_json(text)
    return require_table(found, what)


def require_table(found: Any, what: str) -> dict[str, Any]:
    """The table itself; raises ValueError, which names `what`, for anything else."""
    if not isinstance(found, dict):
        raise ValueError(f"{what} is damaged (it holds a {type(found).__name__}, not a table); save it again")
    return found


def _take_part(settings: Mapping[str, Any], layer: str) -> dict[str, Any]:
    """The settings of a layer's part of the pipeline, which may have its name in front: `unet.lora_alpha`."""
    part = layer.split(".")[0]
    return {key.removeprefix(f"{part}."): value for key, value in settings.items()}


def _refuse_changed_base(settings: Mapping[str, Any], file: Path) -> None:
    begun = settings.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(TAKEN_AWAY):
        raise ValueError(
            f"{file} was trained with init_lora_weights {begun!r}, which takes a part of the base's weights away: its "
            "factors are no change of the base; save it with PEFT's path_initial_model_for_weight_conversion, or "
            "merge it into a model and import that folder against its base"
        )


def _read_alpha(settings: Mapping[str, Any], layer: str, source: Path) -> float | None:
    """The alpha of a layer in its part's settings.

    Raises:
        ValueError: an alpha is no number, or a pattern is invalid; the message names the file of the settings.
    """
    alpha = settings.get("lora_alpha")
    with refusing(source, "damaged: its alpha_pattern is no table of patterns", "save the LoRA again"):
        for pattern, value in (settings.get("alpha_pattern") or {}).items():
            if re.fullmatch(rf"(.*\.)?({pattern})", layer):
                alpha = value
                break
    if alpha is not None and not (type(alpha) in (int, float) and abs(alpha) < LARGEST):
        raise ValueError(f"{source} is damaged: its alpha is {shorten(repr(alpha))}, no number; save the LoRA again")
    return None if alpha is None else float(alpha)
