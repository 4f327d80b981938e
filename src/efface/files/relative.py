"""Writes a path as it is found from a folder."""

from __future__ import annotations

import os
from pathlib import Path


def find_relative(path: str | Path, folder: str | Path) -> str:
    """The path relative to a folder, such that `folder / path` is the file, also where links to folders lead to either.

    The system follows a link before it goes up by "..", so that the parents of a link's own place are others.
    """
    path = Path(os.path.abspath(path))
    return os.path.relpath(os.path.realpath(path.parent) + os.sep + path.name, os.path.realpath(folder))
