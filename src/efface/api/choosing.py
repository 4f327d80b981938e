"""How `efface takedown --method auto` chooses the methods that it tries: a rule over one file of measured rates.

The file is `choice.toml` beside this module. `python -m recipes.choice` measures it and writes it, with its page
`docs/choice.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..concept import Erasure
from ..files import read_toml, refusing
from ..methods import build_method, list_names

if TYPE_CHECKING:
    from ..models.base import Model

CHOICE = Path(__file__).parent / "choice.toml"
SHORT = 12
"""Characters of a model's fingerprint that are shown and compared."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a method did, as means over concepts, in percent."""

    esr1: float
    """ESR-1 of the target: the share of its pictures in which no judge sees it."""
    neighbour: float
    """Points of PSR-1 that near neighbours lose, 0 where they gain."""
    unseen: float
    """Points of PSR-1 that things lose which the training never saw, 0 where they gain."""

    @property
    def balance(self) -> float:
        """What methods are ranked by: the share that is erased, less the points that others lose."""
        return self.esr1 - self.neighbour - self.unseen


@dataclass(frozen=True, kw_only=True)
class ChoiceTable:
    """Measured rates of methods that need nothing but a name, and how they were measured."""

    model: str
    fingerprint: str
    """The first characters of the digest of the model's fp32 weights; empty where it was not noted."""
    concepts: tuple[str, ...]
    pictures: int
    """Pictures of each group, for each concept and method."""
    seed: int
    """The training seed."""
    command: str
    versions: Mapping[str, str]
    methods: Mapping[str, Rates]
    note: str = ""
    """What else is to be known of the measurement."""

    def rank(self) -> list[str]:
        """The methods, the best balance first; of equal ones the first of the alphabet."""
        return sorted(self.methods, key=lambda name: (-self.methods[name].balance, name))

    def describe(self, model: Model) -> str:
        """One line that names this table, and says where it is not of the model as it is today."""
        of = f"weights {self.fingerprint}" if self.fingerprint else "weights not noted"
        measured = f"{len(self.concepts)} concepts, {self.pictures} pictures a group"
        what = f"rates measured on {self.model} ({of}; {measured}; docs/choice.md)"
        if model.name != self.model:
            return f"{what}, not on {model.name}"
        ours = model.fingerprint()["fp32"][:SHORT]
        return what if ours == self.fingerprint else f"{what}, not on today's weights {ours}"


def read_choice_table(path: Path = CHOICE) -> ChoiceTable:
    """The table by which `auto` ranks.

    Raises:
        FileNotFoundError, ValueError: no such file, or it is not of that form.
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
    model: Model, erasure: Erasure, method: str, tries: int, table: ChoiceTable | None = None
) -> tuple[str, ...]:
    """The methods to try: the one that is named, or for "auto" the best of a table that serve model and request.

    The best has the highest ESR-1 less the points that near neighbours and things never seen in training lose. Among
    those that are tried, what is measured on the user's own model then decides.

    Args:
        tries: how many methods "auto" returns at most.
        table: by default the one that comes with efface.

    Raises:
        ValueError: there is no such method, or none that serves.
    """
    if method != "auto":
        build_method(method, model, {}).check(erasure, model)
        return (method,)
    found, refused = [], []
    for name in filter(list_names().__contains__, (table or read_choice_table()).rank()):
        try:
            build_method(name, model, {}).check(erasure, model)
            found.append(name)
        except ValueError as error:
            refused.append(str(error))
    if not found:
        why = f" ({refused[0]})" if refused else ""
        raise ValueError(f"none of the methods that need only a name serves {model.name}{why}; name one with --method")
    return tuple(found[:tries])
