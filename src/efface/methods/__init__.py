"""Presets, one file each: a choice on every axis and the paper's defaults.

Names and one-line descriptions are read from the files without running them, so that listing needs no torch.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..concept import Erasure
    from ..game import Edit, Method
    from ..models.base import Model


def names() -> list[str]:
    """Every method, by the name of its file."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if not file.stem.startswith("_"))


def describe(name: str) -> str:
    """The first line of the method's docstring."""
    docstring = ast.get_docstring(ast.parse(_file(name).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def get(name: str) -> type[Method]:
    """The method's class: the one dataclass its file defines that is a Method."""
    from ..game import Method

    module = importlib.import_module(f"{__name__}.{_file(name).stem}")
    (found,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    return found


def suggested(name: str, model: Model) -> dict[str, Any]:
    """Arguments that the model suggests in place of the method's own defaults; worth printing when used."""
    given = dict(model.defaults.methods.get(name, {}))
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def configured(name: str, model: Model, overrides: Mapping[str, Any]) -> Method:
    """The method with the model's suggestions, and these arguments over them.

    Raises:
        ValueError: no such method or argument; names the nearest that there is.
    """
    method = get(name)
    arguments = suggested(name, model) | dict(overrides)
    fields = [field.name for field in dataclasses.fields(method)]
    if unknown := sorted(set(arguments) - set(fields)):
        near = difflib.get_close_matches(unknown[0], fields, n=1)
        raise ValueError(
            f"{name} has no argument {unknown[0]!r}"
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


def _file(name: str) -> Path:
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        raise ValueError(
            f"no method {name!r}; "
            + (f"did you mean {near[0]!r}? " if near else "")
            + f"there are {', '.join(names())}"
        )
    return Path(__file__).parent / f"{name}.py"
