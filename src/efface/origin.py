"""Says where code of other packages comes from: its module, its package with the version, and a hash of its source.

All of this is empty for efface's own code, which a record names by efface's version.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import sys
import traceback
from pathlib import Path
from typing import Any

from .source import OWN, dump, list_imported


def describe_origin(kind: type[Any]) -> dict[str, str]:
    """The module, the package with its version, and the hash of the source of a class; empty for efface's own.

    A class that no installed package holds, such as one of a notebook, has no package, and without a file no hash.
    """
    if is_own(kind):
        return {}
    found = {"module": kind.__module__, "package": find_package(kind.__module__), "code": hash_code(kind)}
    return {key: value for key, value in found.items() if value}


def describe_origins(*kinds: type[Any]) -> dict[str, dict[str, str]]:
    """Where classes of other packages come from, by their modules; efface's own are left out."""
    found = {kind.__module__: describe_origin(kind) for kind in kinds if not is_own(kind)}
    return {module: {key: value for key, value in told.items() if key != "module"} for module, told in found.items()}


def identify(scorer: Any) -> dict[str, Any]:
    """What a scorer's answers depend on: what it says itself, and its source where another package brings it."""
    own, code = scorer.identify(), hash_code(type(scorer))
    return {**own, "code": code} if code else own


def describe_scorer(scorer: Any) -> dict[str, Any]:
    """What a record says of a scorer: what its answers depend on, and where it comes from."""
    return {**identify(scorer), **describe_origin(type(scorer))}


def find_line(error: BaseException | None) -> str:
    """The file and line of an installed package that adds to efface where an error was raised; "" where none was.

    The file is relative to the folder of packages; of several, it is the innermost.
    """
    while error is not None:
        for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
            module = str(frame.f_globals.get("__name__", ""))
            if module.partition(".")[0] in _list_adding(tuple(sys.path)):
                return f"{module.replace('.', '/')}.py, line {line}"
        error = error.__cause__
    return ""


@functools.cache
def _list_adding(_path: tuple[str, ...]) -> dict[str, str]:
    """The packages on this path that add to efface by entry points, with their versions, by top-level module."""
    found: dict[str, str] = {}
    for dist in importlib.metadata.distributions():
        for point in dist.entry_points:
            if point.group.startswith(f"{OWN}.") and (top := point.module.partition(".")[0]) != OWN:
                found.setdefault(top, f"{dist.name} {dist.version}")
    return found


def is_own(kind: type[Any]) -> bool:
    """Whether a class is efface's own."""
    return kind.__module__.partition(".")[0] == OWN


@functools.cache  # for each class, because one that is imported again after a change is another class
def hash_code(kind: type[Any]) -> str:
    """A hash of the source that a class of another package uses; "" for efface's own, and where there is no file.

    It covers the class' module and the modules of the same package that this imports, directly or not, without
    comments and docstrings, and the text of the tables (.toml) beside them.
    """
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if is_own(kind) or not file:
        return ""
    found = list_imported(kind.__module__, Path(file))
    parts = [f"{name} {dump(each)}" for name, each in sorted(found.items())]
    folders = {each.parent for name, each in found.items() if "." in name or each.name == "__init__.py"}
    for table in sorted(table for folder in folders for table in folder.glob("*.toml")):
        parts.append(f"{table.name} {table.read_text(encoding='utf-8')}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def find_package(module: str) -> str:
    """The installed package of a module, with its version, such as "mypackage 1.2"; "" where none holds it."""
    return _find_package(module, tuple(sys.path))


@functools.cache
def _find_package(module: str, path: tuple[str, ...]) -> str:
    """The same for the packages on this path."""
    top = module.partition(".")[0]
    if adding := _list_adding(path).get(top):  # an editable package has no list of its modules
        return adding
    names = importlib.metadata.packages_distributions().get(top, ())
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(set(names)))
