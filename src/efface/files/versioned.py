"""Reads records: JSON files that state their version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from .structured import read_json, refusing

T = TypeVar("T")


def read_versioned(path: str | Path, version: int | tuple[int, ...], parse: Callable[[Any], T], remedy: str) -> T:
    """Reads a record from a JSON file with a number `version`.

    Args:
        path: the file.
        version: the version that can be read, or all that can.
        parse: makes the record from the file's value; raises ValueError (as pydantic does) where it is damaged.
        remedy: what to do about a damaged file, such as "run the evaluation again".

    Raises:
        ValueError: it has another version, or is damaged; the message names the file.
        OSError: it can't be read.
    """
    path, known = Path(path), (version,) if isinstance(version, int) else version
    data = read_json(path, remedy)
    found = data.get("version") if isinstance(data, dict) else None
    if found is None:
        raise ValueError(f"{path} has no version number, so it is a file of another kind, or damaged; {remedy}")
    if found not in known or isinstance(found, bool):
        raise ValueError(f"{path} is of version {found}; this efface reads version {' or '.join(map(str, known))}")
    with refusing(path, "damaged", remedy):
        return parse(data)
