"""Guides, one file each: erasing while pictures are drawn, with every weight left alone."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..concept import Erasure
from ..game import Edit, Kind, Method, versions
from ..models.base import Model
from ..models.guide import Guide


@dataclass(frozen=True, kw_only=True)
class Guided(Method):
    """A method that needs no training: it says which guide answers the request."""

    kind: ClassVar[Kind] = "inference time"
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl", "ddpm")

    @abstractmethod
    def guide(self, erasure: Erasure) -> Guide:
        """The guide, at strength 1."""

    def fit(
        self,
        model: Model,
        erasure: Erasure,
        *,
        progress: Callable[..., None] | None = None,
        checkpoint: str | Path | None = None,
    ) -> Edit:
        """Writes the guide down; there is nothing to train, to tell of, or to resume."""
        self.check(erasure, model)
        guide = kept(self.guide(erasure))
        return Edit({}, {**self.record(model, erasure), "versions": versions(), "notes": {}, "guide": guide})

    def check(self, erasure: Erasure, model: Model | None = None) -> None:
        """As every method does; and the guide itself must fit the model."""
        Method.check(self, erasure, model)
        if model is not None:
            self.guide(erasure).check(model)


def names() -> list[str]:
    """Every guide, by the name of its file."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if not file.stem.startswith("_"))


def get(name: str) -> type[Guide]:
    """The guide's class: the one that its file defines."""
    if name not in names():
        near = difflib.get_close_matches(str(name), names(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no guide {name!r}; {hint}there are {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    (found,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Guide) and value.__module__ == module.__name__
    ]
    return found


def kept(guide: Guide) -> dict[str, Any]:
    """What an Edit keeps of a guide whose fields are of JSON's types: its name and its arguments."""
    fields = [field.name for field in dataclasses.fields(guide) if field.name != "strength"]
    arguments = {name: getattr(guide, name) for name in fields}
    told = {name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()}
    return {"name": type(guide).__module__.rpartition(".")[2], "arguments": told}


def made(name: str, arguments: Mapping[str, Any], strength: float = 1.0) -> Guide:
    """The inverse of `kept`, at this strength; ValueError where the guide takes other arguments."""
    kind = get(name)
    wanted = {field.name for field in dataclasses.fields(kind)} - {"strength"}
    if set(arguments) != wanted:
        given = ", ".join(sorted(arguments)) or "nothing"
        raise ValueError(f"the guide {name} takes {', '.join(sorted(wanted))}; the edit holds {given}")
    told = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    return kind(**told, strength=strength)
