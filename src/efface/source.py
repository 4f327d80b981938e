"""Reads classes from their source files without importing them, so that listing needs no torch.

Imports are followed from file to file within efface and within the top-level package that a file belongs to.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import itertools
import sys
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
    """A class in its source file."""

    node: ast.ClassDef
    module: str
    """The dotted name of the file's module."""
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
    """The syntax tree of a file; parsed once for each state of the file. Raises ValueError where it is not Python."""
    return _parse(file, file.stat().st_mtime_ns)


def list_classes(file: Path, module: str) -> list[SourceClass]:
    """The classes that the file of this module defines at top level, in order."""
    tree = parse(file)
    return [SourceClass(node, module, tree, False) for node in tree.body if isinstance(node, ast.ClassDef)]


def walk_lineage(own: SourceClass) -> Iterator[SourceClass]:
    """The class and those of its bases whose source can be found, each before its own bases."""
    yield own
    for base in own.node.bases:
        if isinstance(base, ast.Name) and (found := _find(base.id, own)):
            yield from walk_lineage(found)


def list_fields(node: ast.ClassDef) -> dict[str, ast.AnnAssign]:
    """The annotated names of a class body, in order: fields of a dataclass and class variables."""
    lines = [line for line in node.body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
    return {ast.unparse(line.target): line for line in lines}


def read_field_docs(own: SourceClass) -> dict[str, str]:
    """The string below each field of the class and of its bases."""
    found: dict[str, str] = {}
    for each in walk_lineage(own):
        for line, below in itertools.pairwise(each.node.body):
            if (
                isinstance(line, ast.AnnAssign)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found.setdefault(ast.unparse(line.target), " ".join(str(below.value.value).split()))
    return found


class Unreadable(ValueError):
    """A field's type or default can't be read from its source, so that its class has to be imported."""


@dataclass(frozen=True)
class SourceField:
    """A field of a dataclass in its source."""

    name: str
    type: Any
    """The annotation, evaluated."""
    default: Any
    about: str
    """The string below it; "" where there is none."""
    own: bool
    """Whether the class itself defines it or gives it another default; otherwise a base does."""


def read_fields(own: SourceClass) -> list[SourceField]:
    """The fields of a dataclass and its bases, in the order of `dataclasses.fields`.

    Raises:
        Unreadable: a type or a default needs a module that is not loaded, or there is no default.
    """
    docs, found = read_field_docs(own), dict[str, SourceField]()
    order = list(walk_lineage(own))
    last = {(each.module, each.name): i for i, each in enumerate(order)}  # a base that two share follows both
    for each in reversed([order[i] for i in sorted(last.values())]):
        for name, line in list_fields(each.node).items():
            if is_trait(line):
                found.pop(name, None)  # a base's field, which this class does not have
                continue
            if line.value is None:
                raise Unreadable(f"{each.name}.{name} has no default")
            kind, default = (_evaluate(node, each) for node in (line.annotation, line.value))
            found[name] = SourceField(name, kind, default, docs.get(name, ""), each is own)
    return list(found.values())


def is_trait(line: ast.AnnAssign) -> bool:
    """Whether an annotated name is a class variable."""
    return ast.unparse(line.annotation).startswith("ClassVar")


def read_traits(own: SourceClass) -> dict[str, Any]:
    """The class variables that are plain constants: the class' own, and others from its bases."""
    found: dict[str, Any] = {}
    for each in walk_lineage(own):
        for name, line in list_fields(each.node).items():
            if name not in found and is_trait(line) and line.value is not None:
                with suppress(ValueError):  # it is no plain constant
                    found[name] = ast.literal_eval(line.value)
    return found


def read_summary(file: Path) -> str:
    """The first sentence of a file's docstring, over several lines if needed."""
    said: list[str] = []
    for line in (ast.get_docstring(parse(file)) or "").partition("\n\n")[0].splitlines():
        said.append(line)
        if line.endswith("."):
            break
    return " ".join(said)


def dump(file: Path) -> str:
    """The syntax tree of a file as a text, without comments and docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            texts = [n for n in body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
            node.body = [n for n in body if n not in texts]  # type: ignore[attr-defined]
    return ast.dump(tree)


def list_imported(module: str, file: Path) -> dict[str, Path]:
    """The files of a module and of the modules of its package that it imports, directly or not, by module."""
    found: dict[str, Path] = {}
    waiting = [(module, (file, file.name == "__init__.py"))]
    while waiting:
        name, (place, is_package) = waiting.pop()
        found[name] = place
        for each in _list_own_imports(name, parse(place), is_package):
            if each not in found and (there := locate(each)):
                waiting.append((each, there))
    return found


def _list_own_imports(module: str, tree: ast.Module, is_package: bool) -> set[str]:
    """Dotted names of the same top-level package that a file imports, and the packages above them."""
    named = {module}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = _resolve_import(node, module, is_package)
            named |= {above, *(f"{above}.{alias.name}" for alias in node.names)}
    top = module.partition(".")[0]
    parts = [name.split(".") for name in named if name.partition(".")[0] == top]
    return {".".join(part[:n]) for part in parts for n in range(1, len(part) + 1)}


def locate(module: str) -> tuple[Path, bool] | None:
    """The file of a module, and whether it is a package's; None where no such file is installed.

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
    """The class with this name in the user's file; None where its source belongs to another package."""
    for node in user.tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return SourceClass(node, user.module, user.tree, user.is_package)
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            module = _resolve_import(node, user.module, user.is_package)
            if module.partition(".")[0] not in (OWN, user.module.partition(".")[0]) or not (place := locate(module)):
                return None
            original = next(a.name for a in node.names if name == (a.asname or a.name))
            return _find(original, SourceClass(user.node, module, parse(place[0]), place[1]))
    return None


def _resolve_import(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """The dotted name of the module that an import in a file of this module names."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    up = parts[: len(parts) - node.level + is_package]
    return ".".join([*up, *([node.module] if node.module else [])])


def _evaluate(node: ast.expr, user: SourceClass) -> Any:
    """Evaluates a type or a default of the user's file; it follows names and imports nothing."""
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    values = {name: _find_value(name, user) for name in names}
    return eval(compile(ast.Expression(node), user.module, "eval"), {"__builtins__": {}}, values)


def _find_value(name: str, user: SourceClass) -> Any:
    """The value of a name in the user's file: assigned there or in a file of the package, or from a loaded module."""
    for node in user.tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if name in [ast.unparse(target) for target in targets]:
                return _evaluate(node.value, user)
        elif isinstance(node, ast.Import) and name in [alias.asname or alias.name for alias in node.names]:
            module = next(a.name for a in node.names if name == (a.asname or a.name))
            if module in sys.modules:
                return sys.modules[module]
        elif isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            module, original = (
                _resolve_import(node, user.module, user.is_package),
                next(a.name for a in node.names if name == (a.asname or a.name)),
            )
            if module in sys.modules and hasattr(sys.modules[module], original):
                return getattr(sys.modules[module], original)
            if module.partition(".")[0] in (OWN, user.module.partition(".")[0]) and (place := locate(module)):
                return _find_value(original, SourceClass(user.node, module, parse(place[0]), place[1]))
    if hasattr(builtins, name):
        return getattr(builtins, name)
    raise Unreadable(f"{user.module} reads {name} from a module that is not loaded")


@cache
def _parse(file: Path, _changed: int) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ValueError(f"{file}, line {error.lineno}, is not Python: {error.msg}") from error
