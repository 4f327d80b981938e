"""A record's own digest, which is written with it and checked when it is read, so that later changes are noticed."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..files import hash_json, read_versioned, write_whole
from ..files.structured import shorten

P = TypeVar("P", bound=BaseModel)
FIELD = "digest"


def digest_of(record: BaseModel, read: bool = False, beside: Sequence[str] = ()) -> str:
    """The sha256 of a record without its own digest, as JSON with sorted keys.

    Args:
        record: the record.
        read: whether it was read from a file; then only the fields in the file count.
        beside: further fields that do not count.
    """
    return hash_json(json.loads(record.model_dump_json(exclude={FIELD, *beside}, exclude_unset=read)))


def write_sealed(path: Path, record: P) -> P:
    """Writes a record that has a field `digest`, whole or not at all; returns it with its digest."""
    sealed = record.model_copy(update={FIELD: digest_of(record)})
    write_whole(path, sealed.model_dump_json(indent=1) + "\n")
    return sealed


def read_sealed(path: Path, version: int | tuple[int, ...], parse: Callable[[Any], P], remedy: str) -> P:
    """Reads a record that has a field `digest`, and warns, once for each file, where it has none.

    Args:
        path: the file.
        version, parse, remedy: as in `files.read_versioned`.

    Raises:
        ValueError: it has another version, was changed since it was written, or is damaged; the message names the file.
    """
    record = read_versioned(path, version, parse, remedy)
    if not getattr(record, FIELD):
        _tell_undigested(path.absolute(), path, remedy)
    return record


@functools.cache
def _tell_undigested(place: Path, path: Path, remedy: str) -> None:
    """Warns, at the first call for a place."""
    warnings.warn(
        f"{path} has no digest, because an earlier version wrote it: a change of it, or of the files that it "
        f"rests on, would not be noticed; {remedy} for a file with a digest",
        stacklevel=4,
    )


def parse_sealed(kind: type[P], data: Any) -> P:
    """Makes the record from a file's contents; files of earlier versions need no digest.

    Raises:
        ValueError: the contents were changed after they were written, or are no such record; the message says where.
    """
    if isinstance(data, dict) and (said := data.get(FIELD)):
        found = hash_json({key: value for key, value in data.items() if key != FIELD})
        if found != said:
            raise ValueError(
                f"it was changed after it was written: the digest of its contents is {found[:16]}…, and it says "
                f"{str(said)[:16]}…"
            )
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
        raise ValueError(f"{shorten(place) or 'it'}: {first['msg']}{more}") from error
