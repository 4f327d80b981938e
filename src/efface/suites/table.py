"""Reads users' tables, whose format may vary, but whose rows must be right.

A byte-order mark, other encodings and delimiters, an index column without a name, further columns, quoted commas and
line breaks are accepted; an error about a row that does not fit its header names the line on which it begins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..concept import fold_name
from ..files.digests import hash_bytes
from ..files.formats import SUFFIXES, parse, refuse
from ..files.missing import require_file
from ..files.structured import read_bytes

__all__ = ["SUFFIXES", "Table", "check_table", "read_table", "refuse"]


LONG, MANY = 60, 20
"""The largest number of characters of a column's name, and of columns, in an error."""


@dataclass(frozen=True)
class Table:
    """A file's rows, and the line on which each begins."""

    file: str
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    lines: tuple[int, ...]
    """The line of the file on which each row begins; for JSON and parquet files, the row's number."""
    sha256: str
    remarks: tuple[str, ...] = ()
    """Remarks on how the file was read, where that is unusual."""
    repeated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The further columns with a repeated name, by that name."""

    def find_column(self, names: Sequence[str], what: str) -> str:
        """The first of these columns that the file has; raises ValueError, which names them, where it has none."""
        found = self.find(names)
        if found is None:
            known = shorten(self.columns)
            raise ValueError(f"{self.file} has no column {' or '.join(names)} ({what}); its columns are {known}")
        return found

    def find(self, names: Sequence[str]) -> str | None:
        """The first of these columns that the file has, in upper or lower case.

        Raises:
            ValueError: it has several columns of that name, which differ.
        """
        cased = {fold_name(column): column for column in reversed(self.columns)}
        found = next((cased[fold_name(name)] for name in names if fold_name(name) in cased), None)
        for other in self.repeated.get(found or "", ()):
            if any(row.get(found or "") != row.get(other) for row in self.rows):
                raise ValueError(f"{self.file} has two columns {found!r}, which differ")
        return found

    def read_text(self, row: int, column: str | None) -> str:
        """A cell as text without surrounding blanks; "" where it is empty, or there is no such column."""
        value = self.rows[row].get(column) if column else None
        if isinstance(value, (list, tuple)):
            value = value[0] if value else None
        return "" if value is None else str(value).strip()


def shorten(columns: Sequence[str]) -> str:
    """Writes the names of columns in one short line, because damaged files have very many, or very long ones."""
    named = [name if len(name) <= LONG else f"{name[:LONG]}…" for name in columns if name]
    return ", ".join(named[:MANY]) + (f" and {len(named) - MANY} more" if len(named) > MANY else "")


def read_table(path: str | Path) -> Table:
    """Reads a file of one of the SUFFIXES.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another kind of file, has an unknown encoding or no rows, or has rows that do not fit the
            header; the message names their lines.
    """
    path = Path(path)
    check_table(path)
    data = read_bytes(path)
    found = parse(path, data)
    if not found.rows:
        raise ValueError(f"{path.name} has no rows")
    sha256 = hash_bytes(data)
    return Table(path.name, found.columns, found.rows, found.lines, sha256, found.remarks, found.repeated)


def check_table(path: Path) -> None:
    """Raises what `read_table` would raise for a missing file or one of another kind, without reading it."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} is no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file")
    require_file(path)
