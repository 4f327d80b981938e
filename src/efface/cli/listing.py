"""`efface list`: what there is, read from files without importing torch."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from .console import result

PACKAGE = Path(__file__).parent.parent
COLUMNS = ("name", "kind", "architectures", "anchor", "keep", "images", "several", "about")


@dataclass(frozen=True)
class List:
    """List the methods, scorers, suites or models there are."""

    what: tyro.conf.Positional[Literal["methods", "scorers", "suites", "models"]]
    """Which of them."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        rows = {"methods": methods, "scorers": scorers, "suites": suites, "models": models}[self.what]()
        columns = COLUMNS if self.what == "methods" else ("name", "about")
        result(rows, self.json, _table(rows, columns))


def methods() -> list[dict[str, Any]]:
    """Every method with its capabilities."""
    from ..methods import capabilities, describe, names

    return [{"name": n, "about": describe(n), **dataclasses.asdict(capabilities(n))} for n in names()]


def scorers() -> list[dict[str, str]]:
    files = sorted((PACKAGE / "scorers").glob("*.py"))
    return [_scorer(f) for f in files if f.stem not in ("__init__", "base")]


def suites() -> list[dict[str, str]]:
    from ..suites import describe

    return describe()


def models() -> list[dict[str, str]]:
    from ..models import names

    found = [{"name": n, "about": "bundled; needs no network"} for n in names()]
    return [*found, {"name": "FOLDER or HUB-ID", "about": "any Stable Diffusion 1.x or 2.x pipeline of diffusers"}]


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


def _scorer(file: Path) -> dict[str, str]:
    """Name, version and purpose of a scorer, from its source."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    versions = [
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.target.id == "version"
        and isinstance(node.value, ast.Constant)
    ]
    about = (ast.get_docstring(tree) or "").partition("\n")[0]
    return {"name": file.stem, "version": str(versions[0]), "about": about}
