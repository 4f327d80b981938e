"""Files: tensors as safetensors with JSON in the header, written whole or not at all; folders of pictures."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def check_writable(path: str | Path) -> Path:
    """The path, after proof that a file can be written there: ask before hours of work, not after.

    Raises:
        OSError: the folder cannot be made or written in, or the path is a folder.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder; name a file in it")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
    """Writes tensors and JSON-able metadata to one safetensors file, under a temporary name first.

    Raises:
        OSError: it can't be written, as where the disk is full; then no file is left, and one of this name stays.
    """
    path = check_writable(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    try:
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(held, temporary, metadata={"efface": json.dumps(meta, sort_keys=True)})
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Within, a folder to write in; after, it has this name if all went well, and is gone if not.

    Raises:
        FileExistsError: something has this name already.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; name a folder that does not")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        yield made
        made.chmod(0o755)
        os.rename(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


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


PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read_pictures(folder: str | Path, side: int) -> dict[str, Tensor]:
    """uint8 pictures [m, 3, side, side] by caption, scaled and cut to a square about their middle.

    Captions come from metadata.jsonl (`file_name`, `text`) where it is there, else from the subfolder's name; pictures
    directly in the folder have the caption "".

    Raises:
        FileNotFoundError: no such folder, or none of its files is a picture.
        ValueError: files that cannot be read as pictures; names them.
    """
    folder = Path(folder)
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in PICTURES)
    if not files:
        kinds = ", ".join(PICTURES)
        raise FileNotFoundError(f"{folder} {'holds no picture' if folder.is_dir() else 'is no folder'}; wanted {kinds}")
    captions = _captions(folder / "metadata.jsonl")
    read, unreadable = {}, []
    for file in files:
        name = str(file.relative_to(folder))
        caption = captions.get(name, "" if file.parent == folder else file.parent.name)
        try:
            with Image.open(file) as image:
                pixels = np.asarray(ImageOps.fit(image.convert("RGB"), (side, side)))
        except OSError:
            unreadable.append(name)
            continue
        read.setdefault(caption, []).append(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
    if unreadable:
        raise ValueError(f"{len(unreadable)} files in {folder} are no readable pictures: {', '.join(unreadable[:5])}")
    return {caption: torch.stack(stack) for caption, stack in read.items()}


def _captions(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if bad := [i for i, row in enumerate(rows, 1) if not {"file_name", "text"} <= set(row)]:
        raise ValueError(f"{file}, line {bad[0]}: a row has file_name and text")
    return {row["file_name"]: row["text"] for row in rows}
