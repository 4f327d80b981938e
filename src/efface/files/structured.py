"""The one reader of JSON, TOML and parquet, with limits and with errors that name the file.

Every such file may come from anybody. A file is refused, by a ValueError of one sentence, if it is truncated, holds
something else, or is larger, longer or more deeply nested than any file that efface writes or that users need.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .missing import describe_missing, require_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MOST_BYTES = 2**28
"""The largest number of bytes of a JSON, TOML or text file: 256 MiB."""
MOST_DEPTH = 64
"""The largest depth of nested lists and objects."""
MOST_ROWS = 1_000_000
"""The largest number of rows of a table; a parquet file of a few kB can hold many more equal ones."""
MOST_CELLS = 2**30
"""The largest number of bytes of a parquet file's cells after unpacking: 1 GiB."""
MOST_TOLD = 300
"""The largest number of characters of a file's contents in an error."""
BATCH = (4, 2**16)
"""The smallest and largest number of a parquet file's rows that are unpacked together."""


@contextmanager
def refusing(path: str | Path, what: str, remedy: str = "") -> Iterator[None]:
    """Turns whatever a library raises about a file into a ValueError of one line: "PATH is WHAT (why); REMEDY".

    Libraries raise many kinds of errors about damaged files, and none of them names the file.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(f"{path} is {what} ({_say(error)})" + (f"; {remedy}" if remedy else "")) from error


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Puts the file's name at the beginning of any ValueError that the block raises about its content."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _say(error: BaseException) -> str:
    """Writes an error in one line; from pydantic's errors, the first one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 2 and "validation error" in lines[0]:
        return shorten(f"{lines[1]}: {lines[2].partition(' [type=')[0]}")
    return shorten(lines[0]) if lines else type(error).__name__


def shorten(text: str) -> str:
    """Shortens a text to MOST_TOLD characters, because the content of a damaged file may have any length."""
    return text if len(text) <= MOST_TOLD else f"{text[:MOST_TOLD]}…"


def read_bytes(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """Reads a file's bytes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has more bytes than `most`.
        OSError: it can't be read; the message names the path.
    """
    path = require_file(path)
    if (size := path.stat().st_size) > most:
        raise ValueError(f"{path} has {size / 2**20:,.0f} MiB; files of this kind are read up to {most / 2**20:,.0f}")
    return path.read_bytes()


def read_json(path: str | Path, remedy: str = "", finite: bool = True) -> Any:
    """Reads the value of a JSON file.

    Args:
        remedy: what to do about a damaged file, such as "run the evaluation again".
        finite: whether NaN and infinite numbers, which JSON does not have, are refused.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or too large; the message names the file.
    """
    data = read_bytes(path)
    with refusing(path, "damaged", remedy):
        return parse_json(data.decode("utf-8"), finite)


def parse_json(text: str, finite: bool = True) -> Any:
    """Parses a JSON text.

    Raises:
        ValueError: it is no JSON, is nested deeper than MOST_DEPTH, or, with `finite`, has NaN or infinite numbers.
    """
    hooks: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _parse_finite} if finite else {}
    try:
        value = json.loads(text, **hooks)
    except RecursionError:
        raise ValueError(f"it is nested more than {MOST_DEPTH} deep") from None
    _check_depth(value)
    return value


def parse_toml_value(text: str) -> Any:
    """Parses a value as TOML writes it (3, [1, 2], "text"); another text is returned as it is."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
    _check_depth(value)
    return value


def read_toml(path: str | Path, remedy: str = "") -> dict[str, Any]:
    """Reads the table of a TOML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TOML, or too large; the message names the file.
    """
    data = read_bytes(path)
    with refusing(path, "damaged", remedy):
        try:
            value = tomllib.loads(data.decode("utf-8"))
        except RecursionError:
            raise ValueError(f"it is nested more than {MOST_DEPTH} deep") from None
        _check_depth(value)
        return value


def read_parquet(path: str | Path, columns: Sequence[str] | None = None, remedy: str = "") -> pa.Table:
    """Reads the table of a parquet file, whose rows and bytes are counted before they are unpacked.

    Args:
        path: the file.
        columns: the columns to read, all by default; all columns of a repeated name are read.
        remedy: what to do about a damaged file, such as "run the evaluation again".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, no parquet file, lacks a column, or is too large; the message names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{describe_missing(path)}{remedy and '; '}{remedy}")
    import pyarrow as pa
    import pyarrow.parquet as pq

    with refusing(path, "damaged or no parquet file", remedy):
        file = pq.ParquetFile(path)
    with file:
        rows, names = file.metadata.num_rows, file.schema_arrow.names
        if rows > MOST_ROWS:
            raise ValueError(f"{path} has {rows:,} rows; tables of up to {MOST_ROWS:,} are read")
        if missing := [name for name in columns or () if name not in names]:
            raise ValueError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(names)}")
        with refusing(path, "damaged or no parquet file", remedy):
            parts = list(_read_batches(file, list(columns) if columns else None))
            table = pa.Table.from_batches(parts, parts[0].schema if parts else _choose(file.schema_arrow, columns))
            table.validate(full=True)
    return table


def _read_batches(file: pq.ParquetFile, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    """The rows, so few at a time that they fit in memory even if each held all that the file holds."""
    facts = file.metadata
    # Single columns are not read, because on damaged ones pyarrow ends the whole process.
    held = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
    if held > MOST_CELLS:
        raise ValueError(f"it says that it holds {held:,} bytes")
    least, most = BATCH
    size = 0
    for batch in file.iter_batches(max(least, min(most, MOST_CELLS // max(1, held))), columns=columns):
        size += batch.nbytes
        if size > MOST_CELLS:
            raise ValueError(f"its cells take more than {MOST_CELLS / 2**30:g} GiB")
        yield batch


def _choose(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    import pyarrow as pa

    return schema if columns is None else pa.schema([schema.field(name) for name in columns])


def _check_depth(value: Any) -> None:
    """Raises ValueError where lists and objects are nested too deep, so that recursion over them would fail."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(f"it is nested more than {MOST_DEPTH} deep")
        level = [part for each in level for part in _list_parts(each) if isinstance(part, dict | list)]


def _list_parts(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is beyond what a number can hold")
    return number
