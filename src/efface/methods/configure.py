"""Methods by name, class or instance, with the arguments that a model suggests and those that are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..catalog import METHODS, did_you_mean, find_table_entry
from ..files import read_toml

if TYPE_CHECKING:
    from ..models.base import Model
    from .base import Method

list_names, find_name, describe, get = METHODS.list_names, METHODS.find_name, METHODS.describe, METHODS.get


NUMBERS = ("int", "float")
"""The annotations of fields that hold a number; a field that may be None has "| None" behind it."""


def suggest_settings(name: str, model: Model) -> dict[str, Any]:
    """Arguments that the model suggests in place of the method's own defaults; worth printing when used."""
    return {**_suggest_for_architecture(get(name), model), **find_suggestion(name, model.defaults.methods)}


def _suggest_for_architecture(kind: type[Method], model: Model) -> dict[str, Any]:
    """What the model's architecture suggests, of the fields that the method has.

    Where errors are measured is the method's own choice, unless it leaves it to noise, as most papers do.
    """
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    told = {name: value for name, value in model.suggested.items() if name in fields}
    return told if fields.get("space") == "eps" else {k: v for k, v in told.items() if k != "space"}


def find_suggestion(name: str, table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The method's entry in a table by method, whichever way it is spelled there; lists become tuples."""
    return find_table_entry(find_name(name), table)


def suggest_for_bundled(name: str, model: str) -> dict[str, Any]:
    """The arguments that a bundled model suggests, by the model's name; empty for any other model."""
    from ..models.loading import BUNDLED

    file = BUNDLED / model / "defaults.toml"
    if not model or "/" in model or not file.is_file():
        return {}
    return find_suggestion(name, read_toml(file).get("method", {}))


def build_method(method: str | type[Method] | Method, model: Model, overrides: Mapping[str, Any]) -> Method:
    """The method with the model's suggestions, and these arguments over them.

    Args:
        method: a name of the catalogue, a class, or an instance, which has its own arguments and takes no suggestion.
        overrides: arguments by name.

    Raises:
        ValueError: there is no such method or argument; names the nearest that there is.
        TypeError: `method` is something else.
    """
    from .base import Method

    if isinstance(method, Method):
        return dataclasses.replace(method, **_check_arguments(type(method), overrides))
    if not (isinstance(method, str) or (isinstance(method, type) and issubclass(method, Method))):
        raise TypeError(
            f"a method is a name such as 'esd', a class or an instance of Method; got {method!r}, "
            f"a {type(method).__name__}"
        )
    kind = get(method) if isinstance(method, str) else method
    own = {**_suggest_for_architecture(kind, model), **find_table_entry(METHODS.get_name(kind), model.defaults.methods)}
    return kind(**_check_arguments(kind, {**own, **_spell_as_fields(kind, overrides)}))


def _check_arguments(kind: type[Method], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by the names of the method's fields; ValueError for one that it does not have, or for a text where
    it takes a number.
    """
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    spelled = _spell_as_fields(kind, given)
    if unknown := sorted(set(spelled) - set(fields)):
        near = did_you_mean(unknown[0], tuple(fields), show=len(fields)).replace("; there are", "; it has")
        raise ValueError(f"{METHODS.get_name(kind)} has no argument {unknown[0]!r}{near}")
    for name, value in spelled.items():
        if isinstance(value, str) and fields[name].removesuffix(" | None") in NUMBERS:
            raise ValueError(f"{METHODS.get_name(kind)}: {name} is a number, got {value!r}")
    return spelled


def _spell_as_fields(kind: type[Method], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments; a field's name ends in "_" where a method of the class has that name."""
    fields = [field.name for field in dataclasses.fields(kind)]
    return {f"{key}_" if f"{key}_" in fields else key: value for key, value in given.items()}
