"""Classes as their source files tell them: nothing that is described is imported, so that listing needs no torch.

Imports are followed from file to file within efface and within the top-level package that a file belongs to.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
OWN = __package__ or "efface"


@dataclass(frozen=True)
class SourceClass:
    """A class as it is written in a file."""

    node: ast.ClassDef
    module: str
    """Dotted name of the file's module."""
    tree: ast.Module
    is_package: bool
    """Whether the file is a package's `__init__.py`."""

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def final(self) -> bool:
        """Whether the class is decorated with `final`."""
        return any(ast.unparse(each).rpartition(".")[2] == "final" for each in self.node.decorator_list)


def parse(file: Path) -> ast.Module:
    """The syntax tree of a file; parsed once for each state of the file."""
    return _parse(file, file.stat().st_mtime_ns)


def classes(file: Path, module: str) -> list[SourceClass]:
    """The classes that the file of this module defines at its top, in their order."""
    tree = parse(file)
    return [SourceClass(node, module, tree, False) for node in tree.body if isinstance(node, ast.ClassDef)]


def lineage(own: SourceClass) -> Iterator[SourceClass]:
    """The class and those of its bases whose source can be found, each before its own bases."""
    yield own
    for base in own.node.bases:
        if isinstance(base, ast.Name) and (found := _find(base.id, own)):
            yield from lineage(found)


def fields(node: ast.ClassDef) -> dict[str, ast.AnnAssign]:
    """The annotated names of a class body, in their order: fields of a dataclass and class variables."""
    lines = [line for line in node.body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
    return {ast.unparse(line.target): line for line in lines}


def field_docs(own: SourceClass) -> dict[str, str]:
    """The string below each field, of the class and of its bases."""
    found: dict[str, str] = {}
    for each in lineage(own):
        for line, below in itertools.pairwise(each.node.body):
            if (
                isinstance(line, ast.AnnAssign)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found.setdefault(ast.unparse(line.target), " ".join(str(below.value.value).split()))
    return found


def is_trait(line: ast.AnnAssign) -> bool:
    """Whether an annotated name is a class variable."""
    return ast.unparse(line.annotation).startswith("ClassVar")


def traits(own: SourceClass) -> dict[str, Any]:
    """The class variables that are plain constants: the class' own and, where it is silent, those of its bases."""
    found: dict[str, Any] = {}
    for each in lineage(own):
        for name, line in fields(each.node).items():
            if name not in found and is_trait(line) and line.value is not None:
                with suppress(ValueError):  # it is no plain constant
                    found[name] = ast.literal_eval(line.value)
    return found


def summary(file: Path) -> str:
    """The first line of a file's docstring, and those after it that belong to its sentence."""
    said: list[str] = []
    for line in (ast.get_docstring(parse(file)) or "").partition("\n\n")[0].splitlines():
        said.append(line)
        if line.endswith("."):
            break
    return " ".join(said)


def locate(module: str) -> tuple[Path, bool] | None:
    """The file of a module and whether it is a package's; None where no such file is installed.

    Only the top-level package is looked up, which imports nothing.
    """
    top, *rest = module.split(".")
    if top == OWN:
        path = PACKAGE.joinpath(*rest)
    else:
        spec = importlib.util.find_spec(top)
        if spec is None or spec.origin is None:
            return None
        path = Path(spec.origin).parent.joinpath(*rest) if spec.submodule_search_locations else Path(spec.origin)
    if path.is_dir():
        return (path / "__init__.py", True) if (path / "__init__.py").is_file() else None
    file = path if path.suffix == ".py" else path.with_name(f"{path.name}.py")
    return (file, False) if file.is_file() else None


def _find(name: str, user: SourceClass) -> SourceClass | None:
    """The class of this name as the user's file sees it; None where its source belongs to another package."""
    for node in user.tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return SourceClass(node, user.module, user.tree, user.is_package)
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            module = _imported(node, user)
            if module.partition(".")[0] not in (OWN, user.module.partition(".")[0]) or not (place := locate(module)):
                return None
            original = next(a.name for a in node.names if name == (a.asname or a.name))
            return _find(original, SourceClass(user.node, module, parse(place[0]), place[1]))
    return None


def _imported(node: ast.ImportFrom, user: SourceClass) -> str:
    """The dotted name of the module that an import names."""
    if not node.level:
        return node.module or ""
    parts = user.module.split(".")
    up = parts[: len(parts) - node.level + user.is_package]
    return ".".join([*up, *([node.module] if node.module else [])])


@cache
def _parse(file: Path, _changed: int) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
