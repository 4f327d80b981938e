"""Presets, one file each: a choice on every axis and the paper's defaults.

A method is called by the name of its file, with hyphens for underscores; both spellings are understood. Names,
descriptions and capabilities are read from the files without running them, so that listing needs no torch.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._capabilities import Capabilities, read

if TYPE_CHECKING:
    from ..concept import Erasure
    from ..edits.edit import Edit
    from ..models.base import Model
    from .base import Method


BASES = ("base", "closed_form", "guided", "pruning", "searching", "states")
"""Files that hold what methods share, and no method."""


def names() -> list[str]:
    """Every method there is."""
    return sorted(_files())


def named(name: str) -> str:
    """The method's own spelling of its name; ValueError where there is none of that name."""
    spelled = name.replace("_", "-")
    if spelled not in _files():
        near = difflib.get_close_matches(spelled, names(), n=1)
        raise ValueError(
            f"no method {name!r}; "
            + (f"did you mean {near[0]!r}? " if near else "")
            + f"there are {', '.join(names())}"
        )
    return spelled


def describe(name: str) -> str:
    """The first line of the method's docstring."""
    docstring = ast.get_docstring(ast.parse(_file(name).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def capabilities(name: str) -> Capabilities:
    """What the method can do, as its file and those of its base classes say."""
    return read(_file(name), __name__)


def get(name: str) -> type[Method]:
    """The method's class: the one dataclass its file defines that is a Method."""
    from .base import Method

    module = importlib.import_module(f"{__name__}.{_file(name).stem}")
    (found,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    return found


def suggested(name: str, model: Model) -> dict[str, Any]:
    """Arguments that the model suggests in place of the method's own defaults; worth printing when used."""
    return suggestion(name, model.defaults.methods)


def suggestion(name: str, table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The method's entry in a table by method, whichever way it is spelled there; lists become tuples."""
    given = next((values for key, values in table.items() if key.replace("_", "-") == named(name)), {})
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def configured(name: str, model: Model, overrides: Mapping[str, Any]) -> Method:
    """The method with the model's suggestions, and these arguments over them.

    Raises:
        ValueError: no such method or argument; names the nearest that there is.
    """
    method = get(name)
    fields = [field.name for field in dataclasses.fields(method)]
    # A field ends in "_" where a method of the class has its name.
    given = {f"{key}_" if f"{key}_" in fields else key: value for key, value in overrides.items()}
    arguments = suggested(name, model) | given
    if unknown := sorted(set(arguments) - set(fields)):
        near = difflib.get_close_matches(unknown[0], fields, n=1)
        raise ValueError(
            f"{named(name)} has no argument {unknown[0]!r}"
            + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(fields)}")
        )
    return method(**arguments)


def erase(
    model: Model,
    erasure: Erasure,
    method: str,
    overrides: Mapping[str, Any],
    *,
    progress: Callable[..., None] | None = None,
    checkpoint: str | Path | None = None,
) -> Edit:
    """Fits a method by name."""
    return configured(method, model, overrides).fit(model, erasure, progress=progress, checkpoint=checkpoint)


def _files() -> dict[str, Path]:
    """The file of each method, in every folder of this package."""
    return _found(tuple((folder, os.stat(folder).st_mtime_ns) for folder in __path__))


@functools.cache
def _found(folders: tuple[tuple[str, int], ...]) -> dict[str, Path]:
    """The files in these folders as they were at these times: looked for once, not once a name."""
    files = (file for folder, _ in folders for file in Path(folder).glob("*.py"))
    return {
        file.stem.replace("_", "-"): file for file in files if not file.stem.startswith("_") and file.stem not in BASES
    }


def _file(name: str) -> Path:
    return _files()[named(name)]
