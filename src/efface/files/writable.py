"""Whether results can be written: asked before the work, not after, and without making anything."""

from __future__ import annotations

import tempfile
from pathlib import Path

OF_FILES = (".png", ".jpg", ".jpeg", ".webp", ".html", ".htm", ".json", ".csv", ".parquet", ".safetensors", ".pdf")
"""Suffixes of files: a folder with one of these was meant as a file."""


def check_folder(path: str | Path) -> Path:
    """The folder, after proof that files can be written in it; nothing is made yet.

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
    """The file's path, after proof that a file can be written there; nothing is made yet.

    Raises:
        OSError: it can't be written.
    """
    path = Path(path)
    try:
        _probe(path, folder=False)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _probe(path: Path, folder: bool) -> None:
    """OSError unless a folder, or a file, of this name can be made or is there already and can be written."""
    if folder and path.exists() and not path.is_dir():
        raise NotADirectoryError("it is a file; name a folder")
    if not folder and path.is_dir():
        raise IsADirectoryError("it is a folder; name a file in it")
    there = path if folder else path.parent
    while not there.exists():
        there = there.parent
    with tempfile.TemporaryFile(dir=there):
        pass
