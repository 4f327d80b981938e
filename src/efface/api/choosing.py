"""How `efface takedown --method auto` chooses the methods that it tries: a rule over one file of measured rates.

The file is `choice.toml` beside this module. `python -m recipes.choice` measures it and writes it, with its page
`docs/choice.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..concept import Erasure
from ..files import read_toml, refusing
from ..methods import build_method, list_names
from ..plurals import write_count

if TYPE_CHECKING:
    from ..models.base import Model

CHOICE = Path(__file__).parent / "choice.toml"
SHORT = 12
"""The number of characters of a model's fingerprint that are shown and compared."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """The rates of a method, as means over concepts, in percent."""

    esr1: float
    """ESR-1 of the target: the share of its pictures in which no judge sees it."""
    neighbour: float
    """The loss of PSR-1 of near neighbours, in points; 0 if they gain."""
    unseen: float
    """The loss of PSR-1 of things that the training never saw, in points; 0 if they gain."""

    @property
    def balance(self) -> float:
        """The number by which methods are ranked: ESR-1 minus both losses."""
        return self.esr1 - self.neighbour - self.unseen


@dataclass(frozen=True, kw_only=True)
class ChoiceTable:
    """Measured rates of the methods that need only the name of a concept, and how they were measured."""

    model: str
    fingerprint: str
    """The first characters of the digest of the model's fp32 weights; empty if it was not recorded."""
    concepts: tuple[str, ...]
    pictures: int
    """The number of pictures of each group, for each concept and method."""
    seed: int
    """The training seed."""
    command: str
    versions: Mapping[str, str]
    methods: Mapping[str, Rates]
    note: str = ""
    """A remark on the measurement."""

    def rank(self) -> list[str]:
        """Lists the methods by falling balance; equal ones are in alphabetical order."""
        return sorted(self.methods, key=lambda name: (-self.methods[name].balance, name))

    def describe(self, model: Model) -> str:
        """Describes this table in one line, which says if it was measured on another model or on other weights."""
        of = f"weights {self.fingerprint}" if self.fingerprint else "weights not noted"
        measured = f"{write_count(len(self.concepts), 'concept')}, {write_count(self.pictures, 'picture')} a group"
        what = f"rates measured on {self.model} ({of}; {measured}; docs/choice.md)"
        if model.name != self.model:
            return f"{what}, not on {model.name}"
        ours = model.fingerprint()["fp32"][:SHORT]
        return what if ours == self.fingerprint else f"{what}, not on today's weights {ours}"


def read_choice_table(path: Path = CHOICE) -> ChoiceTable:
    """Reads the table by which `auto` ranks methods.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is damaged.
    """
    data = read_toml(path, again := "write it anew with python -m recipes.choice")
    with refusing(path, "damaged", again):
        return ChoiceTable(**_parse(data))


def _parse(data: Mapping[str, Any]) -> dict[str, Any]:
    made, methods = data["made"], data["methods"]
    if not methods:
        raise ValueError("it has no methods")
    rates = {name: Rates(**{key: float(value) for key, value in each.items()}) for name, each in methods.items()}
    return {**made, "concepts": tuple(made["concepts"]), "methods": rates}


def choose_methods(
    model: Model,
    erasure: Erasure,
    method: str,
    tries: int,
    table: ChoiceTable | None = None,
    settings: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> tuple[str, ...]:
    """Chooses the methods to try: the named one, or for "auto" the best of a table that serve model and request.

    The best method has the highest ESR-1 minus the losses of near neighbours and of things that the training never saw.
    Methods that leave the weights as they are, such as SPM with its gate, have no export, so that "auto" never tries
    them.
    The choice among the methods that are tried is then made by measurements on the user's own model.

    Args:
        tries: the largest number of methods that "auto" returns.
        table: by default the one that comes with efface.
        settings: arguments of single methods, by the method's name.

    Raises:
        ValueError: there is no such method, or none that serves; a method that is to be tried can't work with its
            arguments, or arguments are given for one that is not.
    """
    chosen = (method,) if method != "auto" else _rank_serving(model, erasure, tries, table, settings)
    for name in chosen:
        build_method(name, model, settings.get(name, {})).check(erasure, model)
    if stray := [name for name in settings if name not in chosen]:
        raise ValueError(
            f"{stray[0]} was given arguments and is not among the methods to try ({', '.join(chosen)}); "
            f"--method {stray[0]} tries it"
        )
    return chosen


def _rank_serving(
    model: Model,
    erasure: Erasure,
    tries: int,
    table: ChoiceTable | None,
    settings: Mapping[str, Mapping[str, Any]],
) -> tuple[str, ...]:
    """The first methods of the table that serve the model and the request; raises ValueError where none does."""
    found, refused = [], []
    for name in filter(list_names().__contains__, (table or read_choice_table()).rank()):
        try:
            build_method(name, model, {}).check(erasure, model)
        except ValueError as error:
            refused.append(str(error))
            continue
        if not build_method(name, model, settings.get(name, {})).leaves_weights():
            found.append(name)
    if not found:
        why = f" ({refused[0]})" if refused else ""
        raise ValueError(f"none of the methods that need only a name serves {model.name}{why}; name one with --method")
    return tuple(found[:tries])
