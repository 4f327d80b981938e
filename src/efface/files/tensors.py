"""Tensors as safetensors files with JSON in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from .atomic import new_file

if TYPE_CHECKING:
    from torch import Tensor


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
    """Writes tensors and JSON-able metadata to one safetensors file, whole or not at all.

    Raises:
        OSError: it can't be written, as where the disk is full; then no file is left, and one of this name stays.
    """
    from safetensors.torch import save_file

    with new_file(path) as made:
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(held, made, metadata={"efface": json.dumps(meta, sort_keys=True)})
    return Path(path)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata that `write_tensors` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, or not written by this toolkit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            meta = (file.metadata() or {}).get("efface")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file ({error}); write it again") from error
    if meta is None:
        raise ValueError(f"{path} carries no efface metadata; only files that efface wrote can be opened")
    return tensors, json.loads(meta)
