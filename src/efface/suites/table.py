"""Tables as people have them: CSV and parquet files, read leniently, judged strictly.

A byte-order mark, an index column without a name, further columns, quoted commas and line breaks are taken as they
are; a row that does not fit its header is named by the line on which it begins.
"""

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..concept import fold_name

SUFFIXES = (".csv", ".parquet")
SHOWN = 5
"""Malformed rows that an error tells of."""


@dataclass(frozen=True)
class Table:
    """A file's rows, and where each begins."""

    file: str
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    lines: tuple[int, ...]
    """The line of the file on which each row begins; of a parquet file, its number."""
    sha256: str

    def column(self, names: Sequence[str], what: str) -> str:
        """The first of these columns that the file has; ValueError names them all where it has none."""
        found = self.find(names)
        if found is None:
            known = ", ".join(c for c in self.columns if c)
            raise ValueError(f"{self.file} has no column {' or '.join(names)} ({what}); its columns are {known}")
        return found

    def find(self, names: Sequence[str]) -> str | None:
        """The first of these columns that the file has, however its letters are cased."""
        cased = {fold_name(column): column for column in reversed(self.columns)}
        return next((cased[fold_name(name)] for name in names if fold_name(name) in cased), None)

    def text(self, row: int, column: str | None) -> str:
        """A cell as text without blanks around it; "" where it is empty, or there is no such column."""
        value = self.rows[row].get(column) if column else None
        if isinstance(value, (list, tuple)):
            value = value[0] if value else None
        return "" if value is None else str(value).strip()


def read_table(path: str | Path) -> Table:
    """Read a .csv or .parquet file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, no UTF-8, no rows, or rows that do not fit the header: names their lines.
    """
    path = Path(path)
    check_table(path)
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    return _parquet(path, sha256) if path.suffix.lower() == ".parquet" else _csv(path, data, sha256)


def check_table(path: Path) -> None:
    """Raises what `read_table` would of a file that is missing or of another kind, without reading it."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} is no {' or '.join(SUFFIXES)} file")
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")


def refuse(file: str, problems: Sequence[str]) -> None:
    """ValueError with the first problems, each told with its line, where there are any."""
    if not problems:
        return
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    raise ValueError(f"{file}, {'; '.join(problems[:SHOWN])}{more}")


def _csv(path: Path, data: bytes, sha256: str) -> Table:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 (byte {error.start}); save it as CSV UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: tuple[str, ...] = ()
    rows, lines, problems = [], [], []
    begins = 1
    try:
        for cells in reader:
            if not columns and cells:
                columns = tuple(cell.strip() for cell in cells)
            elif cells and len(cells) != len(columns):
                problems.append(f"line {begins}: {len(cells)} cells, but the header has {len(columns)}")
            elif cells:
                rows.append(dict(zip(columns, cells, strict=True)))
                lines.append(begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        problems.append(f"line {begins}: {error}")
    refuse(path.name, problems)
    return _checked(Table(path.name, columns, tuple(rows), tuple(lines), sha256))


def _parquet(path: Path, sha256: str) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_table(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path.name} is damaged or no parquet file ({str(error).splitlines()[0]})") from error
    rows = tuple(found.to_pylist())
    return _checked(Table(path.name, tuple(found.column_names), rows, tuple(range(1, len(rows) + 1)), sha256))


def _checked(table: Table) -> Table:
    named = [column for column in table.columns if column]
    if twice := sorted({column for column in named if named.count(column) > 1}):
        raise ValueError(f"{table.file} has two columns {twice[0]!r}")
    if not table.rows:
        raise ValueError(f"{table.file} has no rows")
    return table
