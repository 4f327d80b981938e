"""Builds scorers from words: `KIND`, `KIND:FOLDER_OR_HUB_ID`, and settings after commas, as in `nudenet,threshold=0.6`.

A kind is the name of a scorer's file, its settings are the fields of the class in it; values of a list are separated by
"|". A folder or labels that are not given are taken from the model, if it comes with them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from ..catalog import SCORERS
from .base import Scorer, SetScorer

EARLIER = {"asks": "question"}
"""Earlier names of settings, which still work."""
TRUTHS = {"true": True, "false": False}
Palette = tuple[tuple[str, tuple[int, int, int]], ...]


names, get = SCORERS.list_names, SCORERS.get


@dataclass(frozen=True)
class ModelResources:
    """What comes with a model and completes a scorer's words."""

    folders: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The folder of the network for each kind of scorer."""
    labels: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    """The labels to choose from, by question."""
    palette: Palette = ()
    """The names and colours of backgrounds."""


def build_scorer(words: str, around: ModelResources) -> Scorer | SetScorer:
    """Builds the scorer that the words describe.

    Raises:
        ValueError: there is no such kind or setting, a value is invalid, or a folder is missing that does not come with
            the model; the message says what would have worked.
    """
    head, *rest = words.split(",")
    kind, _, folder = head.partition(":")
    kind = SCORERS.find_name(kind)
    cls = get(kind)
    fields, types = {f.name: f for f in dataclasses.fields(cls)}, get_type_hints(cls)
    given = dict(_parse_setting(kind, option, {name: types[name] for name in fields}) for option in rest)
    if folder:
        if "folder" not in fields:
            raise ValueError(f"scorer {kind} takes no network; write {kind}, or {kind},SETTING=VALUE")
        given = {"name": _name_column(kind, folder, given.get("question", "object"))} | given | {"folder": folder}
    return cls(**_fill(kind, fields, given, around))


def _parse_setting(kind: str, option: str, types: Mapping[str, Any]) -> tuple[str, Any]:
    key, equals, value = option.partition("=")
    key = EARLIER.get(key, key)
    free = [name for name in types if name not in ("folder", "palette")]
    if not equals or key not in free:
        raise ValueError(f"scorer {kind} has no setting {option!r}; it has {', '.join(f'{n}=…' for n in free)}")
    wanted = types[key]
    if wanted is bool:
        if value.casefold() not in TRUTHS:
            raise ValueError(f"scorer {kind}: {key} is true or false, not {value!r}")
        return key, TRUTHS[value.casefold()]
    try:
        return key, wanted(value) if wanted in (int, float) else tuple(value.split("|")) if _takes_several(
            wanted
        ) else value
    except ValueError as error:
        number = "a whole number" if wanted is int else "a number"
        raise ValueError(f"scorer {kind}: {key} is {number}, not {value!r}") from error


def _takes_several(wanted: Any) -> bool:
    return getattr(wanted, "__origin__", None) is tuple


def _fill(kind: str, fields: Mapping[str, Any], given: Mapping[str, Any], around: ModelResources) -> dict[str, Any]:
    """Completes the given settings from the model's resources."""
    out = dict(given)
    if "folder" in fields and "folder" not in out and kind in around.folders:
        out["folder"] = around.folders[kind]
    if kind == "choice" and "labels" not in out:
        out["labels"] = tuple(around.labels.get(out.get("question", "object"), ()))
    if "palette" in fields:
        if not around.palette:
            raise ValueError(f"scorer {kind} needs a model of the glyphs make, whose backgrounds have names")
        out["palette"] = around.palette
    if "folder" not in out and fields.get("folder") and fields["folder"].default is dataclasses.MISSING:
        raise ValueError(f"scorer {kind} needs a network: {kind}:FOLDER_OR_HUB_ID")
    return out


def _name_column(kind: str, folder: str, question: str) -> str:
    """The name of a scorer's column: its question and the name of its network."""
    tail, head = Path(folder).name, question if kind == "classifier" else kind
    return tail if tail.startswith(head) else f"{head}-{tail}"
