"""Writes what an exported folder holds beside the model: a card and the edit's record, without this machine's paths."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import new_folder, read_json, write_whole
from ..models.loading import RECORD

if TYPE_CHECKING:
    from ..edits.edit import Edit
    from ..models.base import Model

CARD = "README.md"


def save_folder(model: Model, folder: Path, about: Mapping[str, Any]) -> Path:
    """Writes a model with the applied edit, its card and its record as a folder, whole or not at all.

    Args:
        about: the base's name, the strength, and under "edit" the edit's record, both without paths of this machine.

    Raises:
        FileExistsError, OSError: the folder exists, or can't be written.
    """
    with new_folder(folder) as made:
        inner = made / "model"
        model.save_pretrained(inner)
        for each in list(inner.iterdir()):
            each.rename(made / each.name)
        inner.rmdir()
        forget_paths(made, hide_folder(model.name))
        public = json.loads(json.dumps(about, default=str))
        write_whole(made / RECORD, json.dumps(public, indent=1, ensure_ascii=False) + "\n")
        write_whole(made / CARD, write_card(public))
    return folder


def hide_folder(name: str) -> str:
    """A model's name without this machine's folders: the last part of a path, or the whole of a hub id.

    A name that is no path here may be one elsewhere: a hub id has at most one slash, and does not begin with a point.

    >>> hide_folder("/models/sd"), hide_folder("me/sd"), hide_folder("/models/x.safetensors@/models/sd")
    ('sd', 'me/sd', 'x.safetensors@sd')
    """
    file, at, folder = name.partition(".safetensors@")
    if at and not Path(name).exists():
        return f"{hide_folder(f'{file}.safetensors')}@{hide_folder(folder)}"
    place = Path(name)
    known = place.is_absolute() or place.exists() or name.startswith(".") or name.count("/") > 1
    return Path(os.path.abspath(name)).name if known else name


def hide_model_folder(edit: Edit) -> dict[str, Any]:
    """An edit's record, with its model's name as `hide_folder` gives it."""
    return {**edit.meta, "model": hide_folder(str(edit.meta.get("model", "")))}


def forget_paths(folder: Path, name: str) -> None:
    """Replaces the path of the model in every configuration by its name."""
    for file in folder.rglob("*.json"):
        data = read_json(file, finite=False)
        if isinstance(data, dict) and "_name_or_path" in data:
            write_whole(file, json.dumps({**data, "_name_or_path": name}, indent=2, sort_keys=True) + "\n")


def write_card(about: Mapping[str, Any]) -> str:
    """Writes the text of a model card: what was changed and how, and where measurements are."""
    edit = about["edit"]
    request = edit.get("request", {})
    targets = ", ".join(request.get("targets", ())) or "a concept"
    arguments = "\n".join(f"| {key} | {value} |" for key, value in edit.get("arguments", {}).items())
    keep = f"Asked to keep: {', '.join(request['keep'])}. " if request.get("keep") else ""
    anchor = f"It became: {request['anchor']}. " if request.get("anchor") else ""
    return f"""---
base_model: {about["model"]}
tags:
  - concept-erasure
  - efface
---

# {about["model"]}, edited to erase {targets}

The weights of `{about["model"]}`, edited with the aim that it no longer draws **{targets}**. {anchor}{keep}The edit was
made with {edit.get("method", "an unknown method")} by efface and applied at strength {about["strength"]:g}.

An erasure is never complete. `efface evaluate`, `efface attack` and `efface audit` measure how often the concept still
appears, what else was changed, and which attacks bring it back. Whoever published this can give you their record.

| argument | value |
| --- | --- |
{arguments}

`{RECORD}` beside this file holds the whole record of the edit: the request, the method's arguments,
seeds, versions, and the fingerprint of the base.
"""
