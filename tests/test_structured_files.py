"""The one reader of JSON, TOML and parquet: what it refuses, how fast, and that nothing reads past it."""

from __future__ import annotations

import ast
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from efface.evaluation.rows_table import read_rows
from efface.files import read_json, read_parquet, read_text, read_toml, structured
from efface.files.structured import MOST_DEPTH, parse_json

SOURCE = Path(__file__).parents[1] / "src" / "efface"
READERS = {
    *("json.loads", "json.load", "tomllib.loads", "tomllib.load", "csv.reader", "csv.DictReader", "torch.load"),
    *("pq.read_table", "pq.ParquetFile", "pq.read_schema", "pickle.load", "pickle.loads", "np.load", "Image.open"),
}
"""Functions that read what may come from anybody; those in `files` alone call them."""


def list_calls(file: Path) -> set[str]:
    """The functions that a source file calls, as it writes them, without those that undo its own dump."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and not (node.args and "dump" in ast.unparse(node.args[0])):
            found.add(ast.unparse(node.func))
    return found


def test_every_file_from_outside_is_read_by_the_one_reader() -> None:
    past = {
        f"{file.relative_to(SOURCE)}: {call}"
        for file in SOURCE.rglob("*.py")
        if file.parent.name != "files"
        for call in list_calls(file) & READERS
    }
    assert past == set()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", r"r.json is damaged \(Expecting property name.*\); do it again"),
        ("[" * 100_000, rf"r.json is damaged \(it is nested more than {MOST_DEPTH} deep\); do it again"),
        ("[" * 65 + "]" * 65, "nested more than 64 deep"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ('{"a": -Infinity}', "-Infinity is no number of JSON"),
        ('{"a": 1e999}', "1e999 is beyond what a number can hold"),
        ("1" * 5000, "Exceeds the limit"),
        ('{"a": 1}}', "Extra data"),
    ],
)
def test_json_that_is_none_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_json(tmp_path / "r.json", "do it again")


def test_json_as_deep_as_it_may_be_is_read() -> None:
    value = parse_json("[" * 64 + "]" * 64)
    assert value == parse_json(str(value))
    assert parse_json("NaN", finite=False) != parse_json("NaN", finite=False)


@pytest.mark.parametrize(("text", "says"), [("a = ", "is damaged"), ("a = " + "[" * 3000, "nested more than 64 deep")])
def test_toml_that_is_none_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ValueError, match=rf"r\.toml .*{says}"):
        read_toml(tmp_path / "r.toml")


def test_files_too_large_or_none_are_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2**28 + 1)
    os.mkfifo(tmp_path / "pipe")
    for read in (read_json, read_toml, read_text):
        with pytest.raises(ValueError, match=r"a.json has 256 MiB; files of this kind are read up to 256"):
            read(tmp_path / "a.json")
        with pytest.raises(FileNotFoundError, match=r"no file .*pipe"):
            read(tmp_path / "pipe")


def test_a_small_parquet_file_of_very_many_rows_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": pa.nulls(3_000_000, pa.string())}), file, compression="zstd")
    assert file.stat().st_size < 10_000
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"rows.parquet has 3,000,000 rows; tables of up to 1,000,000 are read"):
        read_parquet(file)
    assert time.monotonic() - began < 2


def test_a_small_parquet_file_of_very_many_bytes_is_refused_before_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.parquet"
    monkeypatch.setattr(structured, "MOST_CELLS", 2**20)  # of 1 GiB, which a test would have to make first
    pq.write_table(pa.table({"prompt": ["x" * 2**14] * 1000}), file)  # stored once, in a dictionary
    assert file.stat().st_size < 2**15
    with pytest.raises(ValueError, match=r"a.parquet is damaged .*its cells take more than 0.00097"):
        read_parquet(file)
    pq.write_table(pa.table({"prompt": ["x" * 2**21]}), file, compression="zstd")
    with pytest.raises(ValueError, match=r"a.parquet is damaged .*it says that it holds 2,097,\d+ bytes"):
        read_parquet(file)


def test_parquet_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    table = pa.table({"a": ["x", None], "b": [[1], []]})
    pq.write_table(table, file)
    assert read_parquet(file) == table and read_parquet(file, ["b"]) == table.select(["b"])
    pq.write_table(table.slice(0, 0), file)
    assert read_parquet(file, ["a"]).num_rows == 0
    with pytest.raises(ValueError, match=r"a.parquet has no column 'c'; its columns are a, b"):
        read_parquet(file, ["c"])
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"a.parquet is damaged or no parquet file \("):
        read_parquet(file)


LINE = {"concept": "cat", "id": "1", "prompt": "a cat", "seed": 0, "group": "target", "role": "erase", "asks": "object"}
BOTH = [{**LINE, "variant": v, "picture": "a.png", "success": True} for v in ("base", "edited")]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([{"other": 1}], "lacks the columns id, prompt, .*; run the evaluation again"),
        ([{**line, "role": "other"} for line in BOTH], "2 lines that are neither .*'other'"),
        ([{**line, "variant": "base"} for line in BOTH], "2 lines of the base and 0 under the edit"),
        (BOTH[:1], "1 line of the base and 0 under the edit"),
        ([{**line, "seed": "0"} for line in BOTH], "column seed is of type string, not int64"),
        ([{**line, "x.value": 1.0} for line in BOTH], "column x.explanation is of type none"),
        ([{**line, "x.value": 1.0, "x.explanation": ""} for line in BOTH], "column x.answer is no list"),
        ([{**BOTH[0], "prompt": None}, BOTH[1]], "column prompt has empty cells"),
    ],
)
def test_rows_that_are_none_are_refused_by_name(tmp_path: Path, lines: list[dict[str, object]], says: str) -> None:
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=f"rows.parquet .*{says}"):
        read_rows(tmp_path)


def test_rows_are_read_once_they_are_whole(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(BOTH), tmp_path / "rows.parquet")
    assert read_rows(tmp_path) == BOTH
