"""Makes attacks by name, with a budget and settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..catalog import ATTACKS, did_you_mean, find_table_entry
from ..files import read_toml
from ..models.loading import BUNDLED
from ..plurals import write_count
from ..source import read_traits

if TYPE_CHECKING:
    from .base import Attack

STANDARD = ("synonyms", "seeds", "ring-a-bell", "unlearndiff", "soft-prompt")
"""The five prompt attacks that `--attacks standard` makes."""
BASELINE = "random-prefix"
"""The baseline of every attack."""
list_names, find_name, get, name_attack = ATTACKS.list_names, ATTACKS.find_name, ATTACKS.get, ATTACKS.get_name


def describe(name: str) -> dict[str, str]:
    """Name, threat model, version and purpose of an attack, from its source.

    Raises:
        ValueError: the source does not say what an attacker needs for it, or its version.
    """
    entry = ATTACKS.find_entry(name)
    said = read_traits(entry.written)
    if not {"threat", "version"} <= said.keys():
        raise ValueError(
            f"{entry.file}: attack {entry.name} has to declare two class variables by plain texts, "
            'such as threat: ClassVar[Threat] = "prompts" and version: ClassVar[str] = "1"'
        )
    return {"name": entry.name, "threat": said["threat"], "version": said["version"], "about": entry.about}


def suggest_settings(name: str, model: str) -> dict[str, Any]:
    """A bundled model's own values of an attack's settings; empty for any other model."""
    file = BUNDLED / model / "defaults.toml"
    if not model or "/" in model or not file.is_file():
        return {}
    return find_table_entry(find_name(name), read_toml(file).get("attack", {}))


def build_attack(
    name: str, model: str = "", budget: str = "default", overrides: Mapping[str, Any] | None = None
) -> Attack:
    """Makes an attack with its budget.

    Args:
        name: the attack's name.
        model: a bundled model's name, whose own values are used unless the budget is "paper".
        budget: "default"; "paper" for the paper's values whatever the model; "4x" for four times the default, in every
            field of the budget; or a number of queries.
        overrides: settings by name, which override all of these.

    Raises:
        ValueError: there is no such attack, budget or setting, or the budget is 0.
    """
    kind = get(name)
    overrides = dict(overrides or {})
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    if unknown := sorted(set(overrides) - set(fields)):
        near = did_you_mean(unknown[0], list(fields), show=len(fields)).replace("; there are", "; it has")
        raise ValueError(f"{find_name(name)} has no setting {unknown[0]!r}{near}")
    overrides = {
        field: _read_like(fields[field], value, f"{find_name(name)}.{field}") for field, value in overrides.items()
    }
    settings = {**fields, **({} if budget == "paper" else suggest_settings(name, model))}
    if budget.endswith("x"):
        times = _read_positive(budget[:-1], budget)
        settings |= {field: round(settings[field] * times) for field in kind.budget_fields}
    elif budget not in ("default", "paper"):
        settings["queries"] = round(_read_positive(budget, budget))
    attack = kind(**{**settings, **overrides})
    if attack.queries < 1:
        raise ValueError(
            f"{find_name(name)} was given {write_count(attack.queries, 'query', 'queries')}; an attack needs at least 1"
        )
    return attack


def _read_like(default: Any, value: Any, said: str) -> Any:
    """Returns a value of its default's type, which may be a list of such; raises ValueError for another type."""
    if isinstance(default, tuple):
        some = value if isinstance(value, tuple | list) else (value,)
        return tuple(_read_like(default[0], each, said) for each in some) if default else tuple(some)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if default is not None and type(value) is not type(default):
        kind = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[type(default)]
        raise ValueError(f"{said} is {kind}, for example {default!r}; got {value!r}")
    return value


def _read_positive(text: str, budget: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"no budget {budget!r}; give default, paper, a factor such as 4x, or queries such as 20")
    return number
