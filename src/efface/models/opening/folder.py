"""Opens a diffusers folder part by part, so that every tensor comes from the files and none is random."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from ...plurals import write_count
from .stored import UNUSED, Part, check_parts, describe, to_arguments

NAMED = 3
"""Number of tensors that an error names."""


def open_folder(folder: str | Path, pipeline: Any, variant: str = "", read: Mapping[str, Any] | None = None) -> Any:
    """Opens the pipeline of a folder, in fp32 on the CPU except for the parts in `read`.

    Args:
        folder: a diffusers folder.
        pipeline: the class of its pipeline.
        variant: the weights to take where a part has several.
        read: further arguments of `from_pretrained` by part: its quantisation, device and dtype.

    Raises:
        ValueError: a part is missing, damaged or does not fit its configuration.
    """
    folder = Path(folder)
    parts = check_parts(folder, variant)
    weighty = {
        part.name: _open_weights(folder, part, (read or {}).get(part.name, {})) for part in parts if part.weights
    }
    if not weighty:
        raise ValueError(f"{folder}/model_index.json names no part that has weights; fetch the folder again")
    held, takes = {part.name for part in parts}, inspect.signature(pipeline.__init__).parameters.values()
    required = {each.name for each in takes if each.default is inspect.Parameter.empty} - {"self"}
    absent: dict[str, Any] = {each.name: None for each in takes if each.name in UNUSED}
    absent |= {name: None for name in required - held}  # the folder lacks it; the adapter raises if it needs it
    # Stable Diffusion 1.x asks for its safety checker, which is not called here.
    if "safety_checker" in absent:
        absent["requires_safety_checker"] = False
    try:
        return pipeline.from_pretrained(folder, **weighty, **absent)
    except Exception as error:
        raise _build_refusal(str(folder), error) from error


def _open_weights(folder: Path, part: Part, read: Mapping[str, Any]) -> Any:
    """Opens one part, and demands that its weights are complete."""
    assert part.weights
    kind = getattr(diffusers if part.package == "diffusers" else transformers, part.kind, None)
    where = describe(part, folder)
    if kind is None or not hasattr(kind, "from_pretrained"):
        raise ValueError(f"{folder}: {part.name} is a {part.kind}, which {part.package} does not know; update it")
    how = {"dtype": torch.float32, **to_arguments(part.weights), **read}
    try:
        module, info = kind.from_pretrained(folder, subfolder=part.name, output_loading_info=True, **how)
    except Exception as error:
        raise _build_refusal(where, error) from error
    if lacking := sorted(info["missing_keys"]):
        raise ValueError(
            f"{where} lacks {write_count(len(lacking), 'tensor')} that {folder / part.name}/config.json needs, among "
            "them "
            f"{', '.join(lacking[:NAMED])}; fetch the weights that belong to this configuration"
        )
    return module


def _build_refusal(where: str, error: Exception) -> ValueError:
    said = " ".join(str(error).split())
    short = said if len(said) <= 200 else f"{said[:200].rsplit(' ', 1)[0]} …"
    return ValueError(f"{where} can't be opened: {short or type(error).__name__}; fetch that part again")
