"""`protocol.json`: an evaluation's settings, written before any work, and the paths of its pictures and its edit."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import find_relative, read_json, write_whole
from ..files.missing import require_in
from ..records.report import list_differences

FILE = "protocol.json"
PLACES = ("images", "edit")
"""The entries that are paths, which may change without a change of what is measured."""


@dataclass(frozen=True)
class Places:
    """The paths of an evaluation's pictures and edit."""

    images: Path
    """The folder of its pictures."""
    edit: Path | None
    """The edit's file at the time of the evaluation; None in files of earlier versions that do not have it."""


def read_places(folder: Path) -> Places:
    """Reads the paths of an evaluation's pictures and edit.

    Raises:
        FileNotFoundError: the folder holds no protocol.json.
        ValueError: the file, which the message names, is damaged.
    """
    path = require_in(folder, FILE, "give the --out of an `efface evaluate`")
    images, edit = _read(path).get("images"), _read(path).get("edit", "")
    if not isinstance(images, str) or not isinstance(edit, str):
        raise ValueError(f"{path} is damaged: it does not say where the pictures lie; run the evaluation again")
    return Places(folder / images, folder / edit if edit else None)


def write_protocol(folder: Path, asked: dict[str, Any], images: Path, edit: Path) -> None:
    """Writes an evaluation's settings, or refuses a folder that holds another evaluation.

    Args:
        folder: the evaluation's folder.
        asked: the settings that determine the numbers.
        images: the folder of its pictures.
        edit: the edit's file.

    Raises:
        ValueError: the folder holds another evaluation, or a damaged file; the message says what differs.
    """
    path = folder / FILE
    ours = {**asked, "images": find_relative(images, folder), "edit": find_relative(edit, folder)}
    if path.is_file() and (different := list_differences(_read(path), ours, skip=PLACES)):
        said = "; ".join(different[:5])
        raise ValueError(f"{folder} holds another evaluation ({said}); give another --out, or remove it")
    write_whole(path, json.dumps(ours, indent=1, sort_keys=True) + "\n")


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path, remedy := "give another --out, or remove that folder")
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged (it holds a {type(found).__name__}); {remedy}")
    return found
