"""Writes and reads tensors as safetensors files with JSON in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from .atomic import new_file
from .missing import require_file
from .structured import parse_json, refusing

if TYPE_CHECKING:
    from torch import Tensor


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
    """Writes tensors and JSON-able metadata to one safetensors file, whole or not at all.

    Raises:
        OSError: it can't be written, for example because the disk is full; an earlier file of this name stays.
    """
    from safetensors.torch import save_file

    with new_file(path) as made:
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(held, made, metadata={"efface": json.dumps(meta, sort_keys=True)})
    return Path(path)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads the tensors and the metadata that `write_tensors` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, was not written by this toolkit, or its metadata is no JSON object.
    """
    path = require_file(path)
    with refusing(path, "truncated or no safetensors file", "write it again"), safe_open(path, framework="pt") as file:
        said = (file.metadata() or {}).get("efface")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    if said is None:
        raise ValueError(f"{path} carries no efface metadata; only files that efface wrote can be opened")
    with refusing(path, "damaged", "write it again"):
        meta = parse_json(said, finite=False)
        if not isinstance(meta, dict):
            raise ValueError(f"its metadata is a {type(meta).__name__}, not an object")
    return tensors, meta


def read_pickle(path: str | Path) -> Any:
    """Reads a pickle of torch with `weights_only`, which builds tensors and containers and runs no code.

    Raises:
        ValueError: it holds anything else, or is damaged; the message names the file.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the unpickler raises errors of many kinds about damaged files, KeyError too
        why = (str(error).splitlines() or [""])[0] if not isinstance(error, LookupError) else "it is damaged"
        raise ValueError(
            f"{path} can't be opened with weights_only ({why or type(error).__name__}); a pickle of a dict of tensors, "
            "as state_dict() gives it, would have worked"
        ) from error
