"""Opens the networks of scorers from a folder or hub id as data, so that no code in a folder is ever run.

Weights are read from safetensors where there are any. A pickle is read with `weights_only`, which builds tensors and
nothing else, and a warning says so.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from ..files import refusing
from ..files.hub import has_answer

NETWORK = "no network that transformers opens"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def choose_place(folder: str) -> dict[str, Any]:
    """The arguments of `from_pretrained` that say where it looks: for a hub id, in the cache alone where the hub does
    not answer, because its client would else retry each file for half a minute. No code of the network is run.
    """
    return {"trust_remote_code": False, "local_files_only": not Path(folder).is_dir() and not has_answer()}


def read_config(folder: str) -> Any:
    """Reads the configuration of a network.

    Raises:
        ValueError: there is no network of that name, it is damaged, or it needs code of its own; the message names the
            folder.
    """
    with refusing(folder, NETWORK, "give a folder or a hub id with a config.json and its weights"):
        return AutoConfig.from_pretrained(folder, **choose_place(folder))


def open_network(kind: Any, folder: str) -> Any:
    """Opens a network in fp32, in evaluation mode.

    Args:
        kind: the class of transformers that opens it.
        folder: its folder or hub id.

    Raises:
        ValueError: there is no network of that name, or it is damaged; the message names the folder.
    """
    read_config(folder)
    place = Path(folder)
    if place.is_dir() and not any(place.glob("*.safetensors")) and any(f for p in PICKLES for f in place.glob(p)):
        warnings.warn(f"the weights in {folder} are a pickle, which is read as tensors alone", stacklevel=3)
    with refusing(folder, NETWORK, "its weights may be damaged, or of another network"):
        network, lost = kind.from_pretrained(
            folder, dtype=torch.float32, weights_only=True, output_loading_info=True, **choose_place(folder)
        )
        if missing := sorted(lost["missing_keys"]):
            raise ValueError(f"its weights lack {missing[0]} ({len(missing)} such)")
        return network.eval()


def open_part(kind: Any, folder: str) -> Any:
    """Opens the tokenizer or image processor of a network; raises ValueError, which names the folder."""
    with refusing(folder, NETWORK, "its tokenizer or image processor may be missing or damaged"):
        return kind.from_pretrained(folder, **choose_place(folder))
