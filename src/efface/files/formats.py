"""Reads rows from the file formats of prompt lists: .csv, .tsv, .txt, .json, .jsonl and .parquet.

Each reader gives columns, rows, the line of the file on which each row begins (for JSON and parquet the row's number),
and remarks on how the file was read.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..concept import fold_name
from ..plurals import write_count
from .structured import MOST_ROWS, parse_json, read_parquet, refusing, shorten
from .text import decode

SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet")
DELIMITERS = (",", "\t", ";", "|")
PROMPT = ("prompt", "caption", "captions", "adv_prompt", "sensitive prompt", "text")
"""The names of columns of prompts."""
WHOLE = ("prompts", "captions", "texts", "data", "rows", "items", "examples", "samples")
"""The names, in a JSON object, of its one list of prompts that are no label."""
SHOWN = 5
"""The number of malformed rows that an error names."""


@dataclass(frozen=True)
class Parsed:
    """The content of a file."""

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    lines: tuple[int, ...]
    remarks: tuple[str, ...] = ()
    repeated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further columns of the same name, by that name; "prompt" may have "prompt.1"."""


def parse(path: Path, data: bytes) -> Parsed:
    """Reads the rows of a file.

    Raises:
        ValueError: the file does not have its format, has too many rows, or has rows that do not fit the header; the
            message names their lines.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return parse_parquet(path)
    text, encoding = decode(data, path.name)
    remarks = ("read as Windows-1252, not UTF-8",) if encoding == "windows-1252" else ()
    if suffix == ".txt" and not _has_header(text):
        return _check_count(path.name, parse_lines(text, remarks))
    if suffix in (".json", ".jsonl"):
        return _check_count(path.name, parse_objects(path.name, text, remarks))
    return _check_count(path.name, parse_csv(path.name, text, remarks))


def refuse(file: str, problems: Sequence[str]) -> None:
    """Raises ValueError with the first problems, each with its line, if there are any."""
    if not problems:
        return
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    raise ValueError(f"{file}, {'; '.join(map(shorten, problems[:SHOWN]))}{more}")


def parse_csv(file: str, text: str, remarks: tuple[str, ...]) -> Parsed:
    """Reads rows of cells under a header; the delimiter is the one that is most frequent in the header."""
    if told := re.match(r"sep=(.)\r?\n", text):  # Excel's own line, and no row
        text = text[told.end() - 1 :]
    delimiter = told[1] if told else find_delimiter(text)
    if delimiter != ",":
        remarks = (*remarks, f"cells are parted by {'tabs' if delimiter == chr(9) else repr(delimiter)}")
    csv.field_size_limit(2**27)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    repeated: dict[str, tuple[str, ...]] = {}
    rows, lines, problems = [], [], []
    begins = 1
    try:
        for cells in reader:
            if not columns and any(cells):
                columns = tuple(cell.strip() for cell in cells)
                names, repeated = name_apart(columns)
            elif columns and cells:
                cells = fit(cells, len(columns), delimiter)
                if len(cells) != len(columns):
                    problems.append(
                        f"line {begins}: {write_count(len(cells), 'cell')}, but the header has {len(columns)}"
                    )
                else:
                    rows.append(dict(zip(names, cells, strict=True)))
                    lines.append(begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        problems.append(f"line {begins}: {error}")
    refuse(file, problems)
    if not columns:
        return Parsed((), (), ())
    if len(columns) == 1 and " " in columns[0]:
        remark = "it has no header: every line is a prompt"
        rows = [{"prompt": cell} for row in (dict.fromkeys(names, columns[0]), *rows) for cell in row.values()]
        return Parsed(("prompt",), tuple(rows), (1, *lines), (*remarks, remark))
    return Parsed(names, tuple(rows), tuple(lines), remarks, repeated)


def fit(cells: Sequence[str], width: int, delimiter: str) -> list[str]:
    """Drops empty cells beyond the header; under a header of one column, a line is one cell."""
    if width == 1 and len(cells) > 1:
        return [delimiter.join(cells).rstrip(delimiter)]
    extra = cells[width:]
    return list(cells[:width] if extra and not any(cell.strip() for cell in extra) else cells)


def find_delimiter(text: str) -> str:
    """The delimiter of the header: the most frequent one of comma, tab, semicolon and bar."""
    header = next((line for line in text.split("\n") if line.strip()), "")
    bare = "".join(part for i, part in enumerate(header.split('"')) if i % 2 == 0)
    return max(DELIMITERS, key=lambda mark: (bare.count(mark), -DELIMITERS.index(mark)))


def name_apart(columns: Sequence[str]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Gives columns unique names ("prompt", "prompt.1"); also returns the further columns of each repeated name."""
    seen: dict[str, int] = {}
    names, repeated = [], {}
    for column in columns:
        count = seen[column] = seen.get(column, 0) + 1
        names.append(f"{column}.{count - 1}" if count > 1 else column)
        if count > 1 and column:
            repeated[column] = (*repeated.get(column, ()), names[-1])
    return tuple(names), repeated


def _has_header(text: str) -> bool:
    """Whether the first line of a text is a header with a cell that names a column of prompts."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    cells = [fold_name(cell.strip().strip('"')) for cell in first.split(find_delimiter(first))]
    return any(cell in PROMPT for cell in cells) and all(cell.count(" ") < 2 for cell in cells)


def parse_lines(text: str, remarks: tuple[str, ...]) -> Parsed:
    """Reads one prompt from each line, in quotes or not."""
    numbered = [(i, _unquote(line.strip())) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    rows = tuple({"prompt": line} for _, line in numbered)
    return Parsed(("prompt",), rows, tuple(i for i, _ in numbered), remarks)


def _unquote(line: str) -> str:
    """Removes quotes around a whole line, but not those around single words."""
    return line[1:-1] if len(line) > 1 and line[0] == line[-1] == '"' and '"' not in line[1:-1] else line


def parse_objects(file: str, text: str, remarks: tuple[str, ...]) -> Parsed:
    """Reads objects or strings: as a list, one a line, by column (as pandas writes them), or prompts by label.

    From COCO's annotations it takes the first caption of each picture.
    """
    try:
        value = parse_json(text, finite=False)  # pandas writes NaN for an empty cell
    except ValueError as whole:
        value, lines = [], []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    value.append(parse_json(line, finite=False))
                except ValueError as error:
                    said = whole if number == 1 else error
                    raise ValueError(f"{file}, line {number}: it is no JSON ({said})") from error
                lines.append(number)
        return _read_records(file, value, lines, remarks)
    if isinstance(value, dict) and isinstance(value.get("annotations"), list):
        first: dict[Any, Any] = {}
        for row in value["annotations"]:
            if isinstance(row, dict):
                first.setdefault(row.get("image_id"), row)
        remark = f"the first of each picture's captions is taken: {len(first)} of {len(value['annotations'])}"
        return _read_records(file, list(first.values()), None, (*remarks, remark))
    if isinstance(value, dict):
        value = _read_columns(file, value)
    return _read_records(file, value, None, remarks)


def _read_columns(file: str, value: dict[str, Any]) -> list[Any]:
    """Reads the rows of a JSON object: one list within it, columns, or prompts by label."""
    parts = [list(p.values()) if isinstance(p, dict) else p for p in value.values()]
    lists = [name for name, p in value.items() if isinstance(p, list)]
    rows = [name for name in lists if any(isinstance(row, dict) for row in value[name])]
    if len(rows) > 1:
        raise ValueError(f"{file} holds several lists of objects: {', '.join(map(repr, rows[:SHOWN]))}; give one alone")
    if rows or (len(lists) == 1 and fold_name(lists[0]) in WHOLE):
        return list(value[rows[0] if rows else lists[0]])
    if not parts or not all(isinstance(p, list) for p in parts):
        return [value]
    columns = any(fold_name(name) in PROMPT for name in value)
    if not columns and value and all(isinstance(p, dict) for p in value.values()):
        return list(value.values())  # rows by number or by file, as pandas writes them
    if columns:
        if len({len(p) for p in parts}) > 1:
            raise ValueError(f"{file} has columns of {sorted({len(p) for p in parts})} rows")
        return [dict(zip(value, cells, strict=True)) for cells in zip(*parts, strict=True)]
    return [{"prompt": prompt, "label_str": name} for name, p in zip(value, parts, strict=True) for prompt in p]


def _read_records(file: str, value: Any, lines: Sequence[int] | None, remarks: tuple[str, ...]) -> Parsed:
    if not isinstance(value, list):
        raise ValueError(f"{file} holds a {type(value).__name__}; a list of objects with a prompt would have worked")
    rows = [{"prompt": row} if isinstance(row, str) else row for row in value]
    lines = lines or range(1, len(rows) + 1)
    if bad := [line for row, line in zip(rows, lines, strict=True) if not isinstance(row, dict)]:
        raise ValueError(f"{file}, row {bad[0]}: it is neither an object nor a prompt")
    columns = tuple(dict.fromkeys(str(column) for row in rows for column in row))
    return Parsed(columns, tuple(rows), tuple(lines), remarks)


def parse_parquet(path: Path) -> Parsed:
    """Reads the rows of a parquet file."""
    found = read_parquet(path)
    names, repeated = name_apart(found.column_names)
    with refusing(path, "damaged or no parquet file"):
        rows = tuple(found.rename_columns(list(names)).to_pylist())
    return Parsed(names, rows, tuple(range(1, len(rows) + 1)), (), repeated)


def _check_count(file: str, parsed: Parsed) -> Parsed:
    if len(parsed.rows) > MOST_ROWS:
        raise ValueError(f"{file} has {len(parsed.rows):,} rows; lists of up to {MOST_ROWS:,} are read")
    return parsed
