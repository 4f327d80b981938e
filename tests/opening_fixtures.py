"""Where the weights of a stored Stable Diffusion are, and ways to damage its files."""

from __future__ import annotations

import json
from pathlib import Path

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 492265168\n"
UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def edit_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
