"""Checks whether results can be written, before the work and without creating anything."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .structured import read_json

OF_FILES = (".png", ".jpg", ".jpeg", ".webp", ".html", ".htm", ".json", ".csv", ".parquet", ".safetensors", ".pdf")
"""Suffixes of files: a folder with one of these was probably meant as a file."""
BLOCK = 4096
"""Bytes that are written to try a disk, as many as file systems give out at once."""


def check_folder(path: str | Path) -> Path:
    """Checks that files can be written in a folder, without creating it; returns the folder.

    Raises:
        OSError: it can't be made or written in.
        ValueError: it is named like a file.
    """
    path = Path(path)
    if path.suffix.lower() in OF_FILES and not path.is_dir():
        raise ValueError(f"{path} is named like a file, and a folder is to be made; try {path.with_suffix('')}")
    try:
        _probe(path, folder=True)
    except OSError as error:
        raise OSError(f"cannot write in {path}: {error.strerror or error}") from error
    return path


def check_file(path: str | Path) -> Path:
    """Checks that a file can be written, without creating it; returns its path.

    Raises:
        OSError: it can't be written.
    """
    path = Path(path)
    try:
        _probe(path, folder=False)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def check_request(file: str | Path, request: Mapping[str, Any], overwrite: bool = False) -> None:
    """Checks that a folder's description of what it holds, if there is one, is of this request.

    Args:
        file: the description, a JSON object.
        request: what will be asked for, in JSON's types or tuples, by the description's keys.
        overwrite: whether the results of another request may be replaced.

    Raises:
        FileExistsError: the folder holds the results of another request; the message says where they differ.
    """
    path = Path(file)
    if overwrite or not path.exists():
        return
    asked = json.loads(json.dumps(request))
    try:
        held = read_json(path)
        other = [key for key, value in asked.items() if key not in held or held[key] != value]
    except (OSError, ValueError, TypeError):
        raise FileExistsError(f"{path} exists and can't be read; give another --out, or add --overwrite") from None
    if other:
        raise FileExistsError(
            f"{path.parent} holds the results of another request ({path.name} has another {', '.join(other)}); give "
            "another --out, or add --overwrite"
        )


def check_room(path: str | Path, needed: int) -> None:
    """Checks that the disk of this path has room for so many bytes.

    Raises:
        OSError: it has less.
    """
    free = shutil.disk_usage(_find_existing(Path(path).parent)).free
    if free < needed:
        raise OSError(
            f"cannot write {path}: it takes {needed / 1e6:.1f} MB or more, and the disk has {free / 1e6:.1f} MB free"
        )


def _find_existing(there: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    while not there.exists():
        there = there.parent
    return there


def _probe(path: Path, folder: bool) -> None:
    """Raises OSError unless a folder, or a file, of this name can be made, or exists and can be written.

    A full disk still takes an empty file, so that one with a block of bytes is tried.
    """
    if folder and path.exists() and not path.is_dir():
        raise NotADirectoryError("it is a file; name a folder")
    if not folder and path.is_dir():
        raise IsADirectoryError("it is a folder; name a file in it")
    with tempfile.TemporaryFile(dir=_find_existing(path if folder else path.parent)) as tried:
        tried.write(bytes(BLOCK))
        tried.flush()
