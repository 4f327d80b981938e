"""The guides by name, and how an edit keeps one."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from ..models.guider import Guider
from .gate import Gate
from .negative import Negative
from .safree import SAFREE
from .sld import SLD

GUIDES: Mapping[str, type[Guider]] = {"gate": Gate, "negative": Negative, "safree": SAFREE, "sld": SLD}


def get(name: str) -> type[Guider]:
    """The guide's class, by its name; ValueError where there is none of that name."""
    if name not in GUIDES:
        near = difflib.get_close_matches(str(name), GUIDES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no guide {name!r}; {hint}there are {', '.join(GUIDES)}")
    return GUIDES[name]


def to_json(guide: Guider) -> dict[str, Any]:
    """What an Edit keeps of a guide whose fields are of JSON's types: its name and its arguments."""
    fields = [field.name for field in dataclasses.fields(guide) if field.name != "strength"]
    arguments = {name: getattr(guide, name) for name in fields}
    told = {name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()}
    return {"name": type(guide).__module__.rpartition(".")[2], "arguments": told}


def from_json(name: str, arguments: Mapping[str, Any], strength: float = 1.0) -> Guider:
    """The inverse of `kept`, at this strength; ValueError where the guide takes other arguments."""
    kind = get(name)
    wanted = {field.name for field in dataclasses.fields(kind)} - {"strength"}
    if set(arguments) != wanted:
        given = ", ".join(sorted(arguments)) or "nothing"
        raise ValueError(f"the guide {name} takes {', '.join(sorted(wanted))}; the edit holds {given}")
    told = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    return kind(**told, strength=strength)
