"""`rows.parquet`: a line a picture, with what was asked, where it lies, its success, and what each scorer said."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..files import write_whole
from ..scorers import Judge
from ..scorers.base import DECLARED
from ..suites.spec import Row
from .images import VARIANTS, ImageSet
from .judging import ScoreTable

EARLIER = {"who": "variant"}
"""Columns by the names that they had before."""


def write_rows(path: Path, images: ImageSet, table: ScoreTable) -> None:
    """Write the lines of the base's pictures, then those of the edited model's.

    A scorer's columns are `NAME.value`, `NAME.answer`, `NAME.explanation` and, where it tells, `NAME.confidence`;
    the field metadata of `NAME.value` says title, unit, better and share.
    """
    sure = [name for name in table.scores["base"] if _confident(table, name)]
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
    pq.write_table(pa.Table.from_pylist(lines, schema=_schema(table.scorers, sure)), sink)
    write_whole(path, sink.getvalue().to_pybytes())


def read_rows_table(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The `rows.parquet` of an evaluation's folder, also of one that was written when a column had another name.

    Args:
        columns: those to read, by their names of today; all by default.

    Raises:
        OSError: there is none, or it is damaged.
    """
    file = folder / "rows.parquet"
    known = pq.read_schema(file).names
    wanted = [next((n for n in known if EARLIER.get(n, n) == c), c) for c in columns] if columns else None
    table = pq.read_table(file, columns=wanted)
    return table.rename_columns([EARLIER.get(name, name) for name in table.column_names])


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> list[Mapping[str, Any]]:
    """The lines of `read_rows_table`, each a picture."""
    return read_rows_table(folder, columns).to_pylist()


def _confident(table: ScoreTable, name: str) -> bool:
    return any(s.confidence for variant in VARIANTS for s in table.scores[variant][name])


def _schema(scorers: Sequence[Judge], sure: Sequence[str]) -> pa.Schema:
    kinds = {"seed": pa.int64(), "counts": pa.list_(pa.string()), "guidance": pa.float64()}
    fields = [pa.field(f.name, kinds.get(f.name, pa.string())) for f in dataclasses.fields(Row)]
    fields += [pa.field("variant", pa.string()), pa.field("picture", pa.string()), pa.field("success", pa.bool_())]
    for scorer in scorers:
        name, declared = scorer.name, {key: str(getattr(scorer, key)) for key in DECLARED}
        fields += [pa.field(f"{name}.value", pa.float64(), metadata=declared)]
        fields += [pa.field(f"{name}.answer", pa.list_(pa.string())), pa.field(f"{name}.explanation", pa.string())]
        fields += [pa.field(f"{name}.confidence", pa.list_(pa.float64()))] if name in sure else []
    return pa.schema(fields)
