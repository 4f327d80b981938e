"""Attacks, one file each; importing this module loads no network.

An attack is called by the name of its file, with hyphens for underscores. Its dataclass' defaults are its paper's; what
a bundled model needs instead stands in its defaults.toml, under [attack.NAME].
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models.loading import BUNDLED

if TYPE_CHECKING:
    from .base import Attack

STANDARD = ("synonyms", "seeds", "ring-a-bell", "unlearndiff", "soft-prompt")
"""The five prompt attacks that `--attacks standard` makes."""
BASELINE = "random-prefix"
"""What every attack is measured against."""
TRAITS = ("threat", "version")
BASES = ("base", "denoising_error")


def names() -> list[str]:
    """The attacks there are, read from the folder."""
    return sorted(_files())


def named(name: str) -> str:
    """The attack's own spelling of its name; ValueError where there is none of that name."""
    spelled = name.replace("_", "-")
    if spelled not in _files():
        near = difflib.get_close_matches(spelled, names(), n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no attack {name!r}; {meant}there are {', '.join(names())}, and standard for five of them")
    return spelled


def describe(name: str) -> dict[str, str]:
    """Name, threat model, version and purpose of an attack, from its source."""
    tree = ast.parse(_files()[named(name)].read_text(encoding="utf-8"))
    lines = (line for node in tree.body if isinstance(node, ast.ClassDef) for line in node.body)
    found = {
        ast.unparse(line.target): str(line.value.value)
        for line in lines
        if isinstance(line, ast.AnnAssign) and isinstance(line.value, ast.Constant)
    }
    about = (ast.get_docstring(tree) or "").partition("\n")[0]
    return {"name": named(name), **{trait: found[trait] for trait in TRAITS}, "about": about}


def get(name: str) -> type[Attack]:
    """The attack's class: the one that its file defines."""
    from .base import Attack

    module = importlib.import_module(f"{__name__}.{_files()[named(name)].stem}")
    (found,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Attack) and value.__module__ == module.__name__
    ]
    return found


def name_of(attack: Attack) -> str:
    """What an attack is called."""
    return type(attack).__module__.rpartition(".")[2].replace("_", "-")


def suggested(name: str, model: str) -> dict[str, Any]:
    """A bundled model's own values for an attack's settings; empty for any other model."""
    file = BUNDLED / model / "defaults.toml"
    if not model or "/" in model or not file.is_file():
        return {}
    table = tomllib.loads(file.read_text(encoding="utf-8")).get("attack", {})
    given = next((values for key, values in table.items() if key.replace("_", "-") == named(name)), {})
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def configured(
    name: str, model: str = "", budget: str = "default", overrides: Mapping[str, Any] | None = None
) -> Attack:
    """An attack with its budget.

    Args:
        model: a bundled model's name, whose own values are taken where the budget is not "paper".
        budget: "default"; "paper": the paper's values whatever the model; "4x": four times the default, in every field
            that the attack spends; or a number: that many queries.
        overrides: settings by name, over all of these.

    Raises:
        ValueError: no such attack, budget or setting; a budget of nothing.
    """
    kind = get(name)
    overrides = dict(overrides or {})
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    if unknown := sorted(set(overrides) - set(fields)):
        raise ValueError(f"{named(name)} has no setting {unknown[0]!r}; it has {', '.join(fields)}")
    overrides = {field: _like(fields[field], value, f"{named(name)}.{field}") for field, value in overrides.items()}
    settings = {**fields, **({} if budget == "paper" else suggested(name, model))}
    if budget.endswith("x"):
        times = _positive(budget[:-1], budget)
        settings |= {field: round(settings[field] * times) for field in kind.budget_fields}
    elif budget not in ("default", "paper"):
        settings["queries"] = round(_positive(budget, budget))
    attack = kind(**{**settings, **overrides})
    if attack.queries < 1:
        raise ValueError(f"{named(name)} was given {attack.queries} queries; an attack needs at least 1")
    return attack


def _like(default: Any, value: Any, said: str) -> Any:
    """A value of its default's kind: a whole number, a number, a truth value, a text, or some of them; ValueError."""
    if isinstance(default, tuple):
        some = value if isinstance(value, tuple | list) else (value,)
        return tuple(_like(default[0], each, said) for each in some) if default else tuple(some)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if default is not None and type(value) is not type(default):
        kind = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[type(default)]
        raise ValueError(f"{said} is {kind}, for example {default!r}; got {value!r}")
    return value


def _positive(text: str, budget: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"no budget {budget!r}; give default, paper, a factor such as 4x, or queries such as 20")
    return number


def _files() -> dict[str, Path]:
    """The file of each attack."""
    files = Path(__file__).parent.glob("*.py")
    return {file.stem.replace("_", "-"): file for file in files if file.stem not in BASES and file.stem[0] != "_"}
