"""The code of other packages that a cell uses, by its hash; cells of efface's own code have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..catalog import ATTACKS, SCORERS, SUITES, Registry, hyphenate
from ..files import hash_file
from ..methods.answers import CATALOGUE
from ..methods.base import Method
from ..origin import hash_code
from ..suites.make import is_file


def list_method_code(method: Method) -> dict[str, Any]:
    """The code of a method, and of the answers that it takes by name from other packages."""
    found = {"method": hash_code(type(method))}
    found |= {axis: _hash_entry(registry, getattr(method, axis, "")) for axis, registry in CATALOGUE.items()}
    return _name_code(found)


def list_attack_code(name: str) -> dict[str, Any]:
    """The code of an attack."""
    return _name_code({"attack": _hash_entry(ATTACKS, name)})


def list_scorer_code(words: tuple[str, ...]) -> dict[str, Any]:
    """The code of scorers, which are named by words."""
    kinds = (each.partition(",")[0].partition(":")[0] for each in words)
    return _name_code({kind: _hash_entry(SCORERS, kind) for kind in kinds})


def hash_suite(name: str) -> str:
    """The hash of a suite's file; "" for efface's own suites, which are among its code."""
    if is_file(name):
        return hash_file(Path(name))
    entry = SUITES.list_entries().get(hyphenate(name))
    return hash_file(entry.file) if entry and entry.package else ""


def _hash_entry(registry: Registry, name: Any) -> str:
    entry = registry.list_entries().get(hyphenate(str(name)))
    return hash_code(registry.get(entry.name)) if entry and entry.package else ""


def _name_code(found: dict[str, str]) -> dict[str, Any]:
    told = {part: code for part, code in found.items() if code}
    return {"code of other packages": told} if told else {}
