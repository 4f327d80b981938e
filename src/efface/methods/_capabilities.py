"""What methods can do, read from their source: neither torch nor the methods themselves are imported.

The traits of a class are the plain constants in its body and, where it is silent, in those of its bases; imports are
followed from file to file within this package.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

PACKAGE = Path(__file__).parents[1]
Need = Literal["no", "optional", "needed", "by choice"]


@dataclass(frozen=True)
class Capabilities:
    """What a method works on, and what of a request it uses."""

    kind: str
    """How it works: trained, closed form, inference time, or in stages."""
    architectures: tuple[str, ...]
    """Models that it serves."""
    anchor: Need
    keep: Need
    images: Need
    """Folders of pictures; where they are optional the model draws its own."""
    several: bool
    """Whether one Edit can erase several concepts."""


@dataclass(frozen=True)
class _Class:
    """A class as written in a file."""

    node: ast.ClassDef
    module: str
    tree: ast.Module
    is_package: bool


def read(file: Path, package: str) -> Capabilities:
    """The capabilities of the one method that a file of this package defines."""
    tree, module = _parse(file), f"{package}.{file.stem}"
    classes = [_Class(node, module, tree, False) for node in tree.body if isinstance(node, ast.ClassDef)]
    lines = [list(_lineage(own)) for own in classes]
    (line,) = [line for line in lines if line[-1].node.name == "Method"]
    traits: dict[str, Any] = {}
    for each in line:
        traits = dict(_constants(each.node)) | traits
    return Capabilities(
        kind=traits["kind"],
        architectures=tuple(traits["architectures"]),
        anchor=_need(traits, traits["uses_anchor"], traits["needs_anchor"]),
        keep=_need(traits, traits["uses_keep"], False),
        images=_need(traits, *_folders(line)),
        several=traits["several"],
    )


def _need(traits: dict[str, Any], uses: bool, needs: bool) -> Need:
    if traits["by_choice"]:
        return "by choice"
    return "needed" if needs else "optional" if uses else "no"


def _folders(line: list[_Class]) -> tuple[bool, bool]:
    """Whether a field names a folder of pictures, and whether one has no default."""
    fields = [node for each in line for node in each.node.body if isinstance(node, ast.AnnAssign)]
    folders = [f for f in fields if isinstance(f.target, ast.Name) and f"_{f.target.id}".endswith("_images")]
    return bool(folders), any(f.value is None for f in folders)


def _constants(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    """The class variables of the body that are plain constants."""
    for line in node.body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name) or line.value is None:
            continue
        if ast.unparse(line.annotation).startswith("ClassVar"):
            yield line.target.id, ast.literal_eval(line.value)


def _lineage(own: _Class) -> Iterator[_Class]:
    """The class and its bases of this package, each before its own bases."""
    yield own
    for base in own.node.bases:
        if isinstance(base, ast.Name) and (found := _find(base.id, own)):
            yield from _lineage(found)


def _find(name: str, user: _Class) -> _Class | None:
    """The class of this name, as the user's file sees it; None where it is not of this package."""
    for node in user.tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _Class(node, user.module, user.tree, user.is_package)
        if isinstance(node, ast.ImportFrom) and node.level and name in [alias.name for alias in node.names]:
            parts = user.module.split(".")
            up = parts[: len(parts) - node.level + user.is_package]
            module = ".".join([*up, *([node.module] if node.module else [])])
            file, is_package = _locate(module)
            return _find(name, _Class(user.node, module, _parse(file), is_package))
    return None


def _locate(module: str) -> tuple[Path, bool]:
    """The file of a module of this package, and whether it is a package's."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return (path / "__init__.py", True) if path.is_dir() else (path.with_suffix(".py"), False)


@cache
def _parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
