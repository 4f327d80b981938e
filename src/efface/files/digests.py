"""Computes the sha256 of bytes, files and values, in lowercase hexadecimal digits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .missing import require_file


def hash_bytes(data: bytes) -> str:
    """The sha256 of bytes: 64 digits."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: str | Path) -> str:
    """The sha256 of a file, which is never in memory as a whole.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with require_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_json(value: Any) -> str:
    """The sha256 of a value's JSON with sorted keys and unescaped letters."""
    return hash_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False).encode())


def find_shared_digest(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """The first name under which two tables have the same digest, such as the cast of a model's weights; "" for none.

    >>> find_shared_digest({"fp32": "a", "fp16": "b"}, {"fp16": "b"})
    'fp16'
    """
    return next((name for name, digest in one.items() if digest and other.get(name) == digest), "")
