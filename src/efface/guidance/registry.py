"""The guides by name, and their form in an edit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..catalog import GUIDERS
from ..models.guider import Guider

get = GUIDERS.get


def to_json(guide: Guider) -> dict[str, Any]:
    """A guide's name and arguments, as an Edit stores them, if its fields are of JSON's types."""
    fields = [field.name for field in dataclasses.fields(guide) if field.name != "strength"]
    arguments = {name: getattr(guide, name) for name in fields}
    told = {name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()}
    return {"name": GUIDERS.get_name(guide), "arguments": told}


def from_json(name: str, arguments: Mapping[str, Any], strength: float = 1.0) -> Guider:
    """The inverse of `to_json`, at this strength; raises ValueError where the guide takes other arguments.

    An argument that has a default may be missing, so that earlier edits can be read.
    """
    kind = get(name)
    wanted = {field.name for field in dataclasses.fields(kind)} - {"strength"}
    spared = {field.name for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING}
    if not wanted - spared <= set(arguments) <= wanted:
        given = ", ".join(sorted(arguments)) or "nothing"
        raise ValueError(f"the guide {name} takes {', '.join(sorted(wanted))}; the edit holds {given}")
    told = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    return kind(**told, strength=strength)
