"""A paper's numbers in a grid: by method and metric, and by concept before them where they are of single concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..catalog import did_you_mean

BASE = "base"
"""The key of the untouched base's numbers."""


def check_reported(reported: Mapping[str, Any], methods: Sequence[str], concepts: Sequence[str]) -> None:
    """Check a grid's `[reported]`.

    Raises:
        ValueError: a key is neither `base`, nor one of the methods and variants, nor a concept with a table for each of
            these; or a value is no number.
    """
    for key, told in reported.items():
        if key in (BASE, *methods):
            _check_numbers(key, told)
        elif key in concepts and isinstance(told, Mapping):
            for method, numbers in told.items():
                if method not in (BASE, *methods):
                    raise ValueError(_refuse(f"[reported.{key}]", method, (BASE, *methods)))
                _check_numbers(f"{key}.{method}", numbers)
        else:
            raise ValueError(_refuse("[reported]", key, (BASE, *methods, *concepts)))


def find_told(reported: Mapping[str, Any], concept: str, names: Sequence[str]) -> Mapping[str, float]:
    """A paper's numbers for one of these names, the first that has some: of the concept alone, or of all concepts.

    >>> find_told({"esd": {"esr1": 0.5}, "church": {"esd": {"esr1": 0.4}}}, "church", ["esd"])
    {'esr1': 0.4}
    """
    own = reported.get(concept, {}) if concept not in names else {}
    return next((table[name] for table in (own, reported) for name in names if name in table), {})


def _check_numbers(key: str, told: Any) -> None:
    if not isinstance(told, Mapping):
        raise ValueError(f"[reported] has {key} = {told!r}; write {key} = {{ esr1 = 0.5 }}, a number for each metric")
    for metric, value in told.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"[reported.{key}] has {metric} = {value!r}, which is no number")


def _refuse(where: str, key: str, known: Sequence[str]) -> str:
    what = "method, variant or concept" if where == "[reported]" else "method or variant"
    return f"{where} names {key}, which is no {what} of the grid{did_you_mean(key, list(dict.fromkeys(known)))}"
