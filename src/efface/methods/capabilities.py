"""The capabilities of methods, read from their source without importing torch or the methods."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any, Literal

from ..catalog import METHODS
from ..models.architectures import ARCHITECTURES, DISTILLED, READ_GUIDANCE, expand
from ..source import SourceClass, list_fields, read_traits, walk_lineage

Need = Literal["no", "optional", "needed", "by choice"]


@dataclass(frozen=True)
class Capabilities:
    """What a method works on, and which parts of a request it uses."""

    kind: str
    """How it works: trained, closed form, inference time, or in stages."""
    architectures: tuple[str, ...]
    """The architectures that it serves."""
    uncond: Need
    """Whether it needs an unconditional prediction, which models with distilled guidance lack."""
    anchor: Need
    keep: Need
    images: Need
    """Folders of pictures; where they are optional the model draws its own."""
    several: bool
    """Whether one Edit can erase several concepts."""


def find_capabilities(name: str) -> Capabilities:
    """What the method of this name can do; ValueError where there is none of that name."""
    return read_capabilities(METHODS.find_entry(name).written)


def describe_needs(can: Capabilities) -> dict[str, str]:
    """Whether a method serves each architecture, by the architecture's name: "no", "yes", "guidance" or "two".

    "guidance" means that the method needs an unconditional prediction, which versions that are distilled to a few steps
    lack. "two" means that the network reads its guidance as a number, while the method needs guidance by two
    predictions.
    """
    return {kind: _describe_need(can, kind) for kind in ARCHITECTURES}


def _describe_need(can: Capabilities, kind: str) -> str:
    if kind not in can.architectures:
        return "no"
    if can.uncond != "needed" or kind not in DISTILLED:
        return "yes"
    return "two" if can.kind == "inference time" and kind in READ_GUIDANCE else "guidance"


def read_capabilities(own: SourceClass) -> Capabilities:
    """What the method of this class can do, as its file and those of its bases say."""
    said = read_traits(own)
    return Capabilities(
        kind=said["kind"],
        architectures=expand(said["architectures"]),
        uncond="by choice" if said["by_choice"] else "needed" if said["needs_uncond"] else "no",
        anchor=_read_need(said, said["uses_anchor"], said["needs_anchor"]),
        keep=_read_need(said, said["uses_keep"], False),
        images=_read_need(said, *_find_folders(own)),
        several=said["several"],
    )


def _read_need(said: dict[str, Any], uses: bool, needs: bool) -> Need:
    if said["by_choice"]:
        return "by choice"
    return "needed" if needs else "optional" if uses else "no"


def _find_folders(own: SourceClass) -> tuple[bool, bool]:
    """Whether a field names a folder of pictures, and whether one of these has no default."""
    lines: dict[str, ast.AnnAssign] = {}
    for each in walk_lineage(own):
        lines = list_fields(each.node) | lines
    folders = [line for name, line in lines.items() if f"_{name}".endswith("_images")]
    return bool(folders), any(line.value is None for line in folders)
