"""`rows.parquet`: a line a picture, with what was asked, where it lies, and what every scorer said of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..files import write_whole
from ..suites.spec import Row
from .judging import WHO, Table


def write(path: Path, paths: Mapping[str, Mapping[str, str]], table: Table) -> None:
    """Write the lines of the base's pictures, then those of the edited model's."""
    sure = [name for name, found in table.scores["base"].items() if _confident(table, name)]
    lines = []
    for who in WHO:
        for i, row in enumerate(table.rows):
            line = {**dataclasses.asdict(row), "who": who, "picture": paths[who][row.id]}
            line["success"] = table.success(who, i)
            for name, found in table.scores[who].items():
                line |= {f"{name}.value": found[i].value, f"{name}.answer": list(found[i].answer)}
                line |= {f"{name}.explanation": found[i].explanation}
                line |= {f"{name}.confidence": list(found[i].confidence)} if name in sure else {}
            lines.append(line)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(lines, schema=_schema(list(table.scores["base"]), sure)), sink)
    write_whole(path, sink.getvalue().to_pybytes())


def _confident(table: Table, name: str) -> bool:
    return any(s.confidence for who in WHO for s in table.scores[who][name])


def _schema(scorers: Sequence[str], sure: Sequence[str]) -> pa.Schema:
    kinds = {"seed": pa.int64(), "counts": pa.list_(pa.string()), "guidance": pa.float64()}
    fields = [(f.name, kinds.get(f.name, pa.string())) for f in dataclasses.fields(Row)]
    fields += [("who", pa.string()), ("picture", pa.string()), ("success", pa.bool_())]
    for name in scorers:
        fields += [(f"{name}.value", pa.float64()), (f"{name}.answer", pa.list_(pa.string()))]
        fields += [(f"{name}.explanation", pa.string())]
        fields += [(f"{name}.confidence", pa.list_(pa.float64()))] if name in sure else []
    return pa.schema(fields)
