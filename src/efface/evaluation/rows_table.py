"""`rows.parquet`: a line for each picture, with its prompt and question, its path, its success, and its scores."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..files import hash_bytes, read_parquet, refusing, write_whole
from ..plurals import write_count
from ..records.report import RowsFile
from ..scorers import Judge
from ..scorers.base import DECLARED
from ..suites.spec import Row
from .images import VARIANTS, ImageSet
from .judging import ScoreTable

NEEDED = ("id", "prompt", "seed", "group", "role", "asks", "concept", "variant", "picture", "success")
"""The columns that every such file has."""
ROLES = ("erase", "keep")
REMEDY = "run the evaluation again, which keeps what is whole"
EARLIER = {"who": "variant"}
"""Earlier names of columns, with today's names."""


def write_rows(path: Path, images: ImageSet, table: ScoreTable) -> RowsFile:
    """Writes the lines of the base's pictures, then those of the edited model's; returns the report's entry for it.

    A scorer's columns are `NAME.value`, `NAME.answer`, `NAME.explanation` and, if it gives confidences,
    `NAME.confidence`; the field metadata of `NAME.value` has title, unit, better and share.
    """
    sure = [name for name in table.scores["base"] if _has_confidence(table, name)]
    lines = []
    for variant in VARIANTS:
        for i, row in enumerate(table.rows):
            line = {**dataclasses.asdict(row), "variant": variant, "picture": images.paths[variant][row.id]}
            line["success"] = table.successes[variant][i]
            for name, found in table.scores[variant].items():
                line |= {f"{name}.value": found[i].value, f"{name}.answer": list(found[i].answer)}
                line |= {f"{name}.explanation": found[i].explanation}
                line |= {f"{name}.confidence": list(found[i].confidence)} if name in sure else {}
            lines.append(line)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(lines, schema=_build_schema(table.scorers, sure)), sink)
    data = sink.getvalue().to_pybytes()
    write_whole(path, data)
    return RowsFile(lines=len(lines), sha256=hash_bytes(data))


def read_rows_table(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads the `rows.parquet` of an evaluation's folder, also one with earlier names of columns.

    Args:
        folder: the evaluation's folder.
        columns: the columns to read, by today's names; all by default.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or truncated, lacks a column, or does not have a picture of the base and one of the
            edited model for each row; the message names the file.
    """
    file = folder / "rows.parquet"
    table = read_parquet(file, remedy=REMEDY)
    table = table.rename_columns([EARLIER.get(name, name) for name in table.column_names])
    if missing := [name for name in NEEDED if name not in table.column_names]:
        raise ValueError(f"{file} lacks the columns {', '.join(missing)}, so it is of no evaluation; {REMEDY}")
    with refusing(file, "damaged", REMEDY):
        _check_types(table)
        lines = table.select(["id", "variant", "role"]).to_pylist()
    _check_lines(file, lines)
    return table.select(list(columns)) if columns else table


def _check_lines(file: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    if strange := [line for line in lines if line["variant"] not in VARIANTS or line["role"] not in ROLES]:
        one = strange[0]
        raise ValueError(
            f"{file} has {write_count(len(strange), 'line that is', 'lines that are')} neither of the base nor "
            "edited, or neither to erase nor to keep "
            f"(first: {one['variant']!r}, {one['role']!r}); {REMEDY}"
        )
    base, edited = (sorted(str(x["id"]) for x in lines if x["variant"] == variant) for variant in VARIANTS)
    if base != edited or len(set(base)) < len(base):
        raise ValueError(
            f"{file} has {write_count(len(base), 'line')} of the base and {len(edited)} under the edit, which are "
            "not of the same "
            f"rows; {REMEDY}"
        )


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> list[Mapping[str, Any]]:
    """Reads the same lines as `read_rows_table`, each as a mapping."""
    table = read_rows_table(folder, columns)
    with refusing(folder / "rows.parquet", "damaged", REMEDY):
        return table.to_pylist()


def _check_types(table: pa.Table) -> None:
    """Raises ValueError where a column is empty or not as `write_rows` makes it, or a scorer's column is missing."""
    schema = table.schema
    if empty := [name for name in NEEDED if name != "success" and table.column(name).null_count]:
        raise ValueError(f"its column {empty[0]} has empty cells")
    kinds = {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)}
    scored = [name.removesuffix(".value") for name in schema.names if name.endswith(".value")]
    texts = [*NEEDED, *(f"{name}.explanation" for name in scored)]
    wanted = dict.fromkeys(texts, "string") | {"seed": "int64", "success": "bool"}
    wanted |= {f"{name}.value": "double" for name in scored}
    if wrong := [name for name, kind in wanted.items() if kinds.get(name) != kind]:
        name = wrong[0]
        raise ValueError(f"its column {name} is of type {kinds.get(name, 'none: it is missing')}, not {wanted[name]}")
    lists = {name: kinds[name] for name in kinds if name.endswith((".answer", ".confidence"))}
    if wrong := [n for n in (*lists, *(f"{s}.answer" for s in scored)) if not lists.get(n, "").startswith("list<")]:
        raise ValueError(f"its column {wrong[0]} is no list")


def _has_confidence(table: ScoreTable, name: str) -> bool:
    return any(s.confidence for variant in VARIANTS for s in table.scores[variant][name])


def _build_schema(scorers: Sequence[Judge], sure: Sequence[str]) -> pa.Schema:
    kinds = {"seed": pa.int64(), "counts": pa.list_(pa.string()), "guidance": pa.float64()}
    fields = [pa.field(f.name, kinds.get(f.name, pa.string())) for f in dataclasses.fields(Row)]
    fields += [pa.field("variant", pa.string()), pa.field("picture", pa.string()), pa.field("success", pa.bool_())]
    for scorer in scorers:
        name, declared = scorer.name, {key: str(getattr(scorer, key)) for key in DECLARED}
        fields += [pa.field(f"{name}.value", pa.float64(), metadata=declared)]
        fields += [pa.field(f"{name}.answer", pa.list_(pa.string())), pa.field(f"{name}.explanation", pa.string())]
        fields += [pa.field(f"{name}.confidence", pa.list_(pa.float64()))] if name in sure else []
    return pa.schema(fields)
