"""`efface list`: what there is, read from files without importing torch."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from .console import result

PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True)
class List:
    """List the methods, scorers, suites or models there are."""

    what: tyro.conf.Positional[Literal["methods", "scorers", "suites", "models"]]
    """Which of them."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        rows = {"methods": methods, "scorers": scorers, "suites": suites, "models": models}[self.what]()
        width = max((len(r["name"]) for r in rows), default=0)
        result(rows, self.json, "\n".join(f"{r['name']:<{width}}  {r['about']}" for r in rows))


def methods() -> list[dict[str, str]]:
    from ..methods import describe, names

    return [{"name": n, "about": describe(n)} for n in names()]


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
