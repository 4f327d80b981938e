"""`efface list`: what there is, read from files without importing torch."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from ..catalog import SCORERS
from ..source import fields, is_trait, lineage, traits
from .console import result

PACKAGE = Path(__file__).parent.parent
OTHERS = {
    "FOLDER or HUB-ID": "any Stable Diffusion 1.x, 2.x or XL pipeline of diffusers",
    "FOLDER with classes.json": "a class-conditional DDPMPipeline of diffusers; classes.json names its classes",
    "FILE.safetensors@FOLDER": "a single file in the original layout of Stable Diffusion 1.x, 2.x or XL, with the "
    "configuration and tokenizer of a diffusers folder, name or hub id",
    "FILE.safetensors": "the same, with those of the hub or its cache",
}
"""What a model may be beside the bundled ones."""
COLUMNS = ("name", "kind", "architectures", "anchor", "keep", "images", "several", "about")


@dataclass(frozen=True)
class List:
    """List the methods, attacks, scorers, suites, protocols or models there are."""

    what: tyro.conf.Positional[Literal["methods", "attacks", "scorers", "suites", "protocols", "models"]]
    """Which of them."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        makers = {"methods": methods, "attacks": attacks, "scorers": scorers, "suites": suites}
        rows = {**makers, "protocols": protocols, "models": models}[self.what]()
        columns = {"methods": COLUMNS, "attacks": ("name", "threat", "about")}.get(self.what, ("name", "about"))
        result(rows, self.json, _table(rows, columns))


def methods() -> list[dict[str, Any]]:
    """Every method with its capabilities."""
    from ..methods import capabilities, describe, names

    return [{"name": n, "about": describe(n), **dataclasses.asdict(capabilities(n))} for n in names()]


def attacks() -> list[dict[str, Any]]:
    """Every attack with what an attacker must hold for it."""
    from ..attacks import describe, names

    return [describe(n) for n in names()]


def scorers() -> list[dict[str, str]]:
    """Every scorer, with the words that `--scorer` takes."""
    return [_scorer(name) for name in SCORERS.names()]


def suites() -> list[dict[str, str]]:
    from ..suites.spec import describe

    return describe()


def protocols() -> list[dict[str, str]]:
    """Published protocols, read from their file."""
    import tomllib

    declared = tomllib.loads((PACKAGE / "evaluation" / "protocols.toml").read_text(encoding="utf-8"))
    told = ("version", "about", "source", "differs")
    return [{"name": name, **{key: declared[name][key] for key in told}} for name in sorted(declared)]


def models() -> list[dict[str, str]]:
    from ..models.loading import names

    found = [{"name": n, "about": "bundled; needs no network"} for n in names()]
    return [*found, *({"name": name, "about": about} for name, about in OTHERS.items())]


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows under each other; with a line of titles where there is more than a name and what it is."""
    titles = [dict(zip(columns, columns, strict=True))] if len(columns) > 2 else []
    lines = [[_cell(row[column]) for column in columns] for row in [*titles, *rows]]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    padded = ([f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _scorer(name: str) -> dict[str, str]:
    """Name, version, settings and purpose of a scorer, from its source."""
    entry = SCORERS.entry(name)
    own = entry.written
    lines: dict[str, ast.AnnAssign] = {}
    for each in lineage(own):
        lines = fields(each.node) | lines
    settings = [each for each, line in lines.items() if not is_trait(line) and each != "palette"]
    words = f"{name}:FOLDER_OR_HUB_ID" if "folder" in settings else name
    rest = "".join(f"[,{each}=…]" for each in settings if each != "folder")
    return {"name": name, "version": str(traits(own).get("version", "")), "words": words + rest, "about": entry.about}
