"""Reading records: JSON files that say their version."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def read_versioned(path: str | Path, version: int | tuple[int, ...], parse: Callable[[Any], T], remedy: str) -> T:
    """A record from a JSON file with a number `version`.

    Args:
        version: the one that is read, or all that are.
        parse: makes the record of the file's value; raises ValueError (pydantic's errors are) where it is damaged.
        remedy: what to do about a damaged file, such as "run the evaluation again".

    Raises:
        ValueError: another version, or damaged; names the file.
        OSError: it can't be read.
    """
    path, known = Path(path), (version,) if isinstance(version, int) else version
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data.get("version") if isinstance(data, dict) else None
        if found in known:
            return parse(data)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]}); {remedy}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is damaged (lists within lists); {remedy}") from error
    raise ValueError(f"{path} is of version {found}; this efface reads version {' or '.join(map(str, known))}")
