"""Copies the parts of a folder that are never called here into an export: the safety checker and what it reads."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

from ...files import write_whole
from .place import INDEX, is_pointer, read_object
from .stored import UNUSED


def copy_unused(folder: Path, out: Path) -> None:
    """Copies the parts that opening skipped, as they are, and names them in the copy's index again.

    A warning names a part that the folder's index has and that can't be copied, because its files were not fetched.

    Args:
        folder: the diffusers folder that a model was opened from.
        out: the folder that its pipeline was written to.
    """
    source, index = read_object(folder / INDEX), read_object(out / INDEX)
    named = [part for part in UNUSED if any(source.get(part) or ()) and not any(index.get(part) or ())]
    for part in named:
        inside = folder / part
        if not inside.is_dir() or not any(inside.iterdir()) or any(map(is_pointer, _list_files(inside))):
            warnings.warn(
                f"{folder} names a {part}, whose files were not fetched: {out.name} is written without it; fetch "
                f"{inside} and export again to keep it",
                stacklevel=2,
            )
            continue
        shutil.copytree(inside, out / part)
        index[part] = source[part]
        if part == "safety_checker":
            index["requires_safety_checker"] = source.get("requires_safety_checker", True)
    if named:
        write_whole(out / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")


def _list_files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]
