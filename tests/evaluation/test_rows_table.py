"""`rows.parquet`: what is written is read, and other columns, types and lines are refused in words."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from efface.evaluation.images import ImageSet
from efface.evaluation.judging import ScoreTable
from efface.evaluation.places import read_places, write_protocol
from efface.evaluation.rows_table import NEEDED, read_rows, read_rows_table, write_rows
from efface.records.report import RowsFile
from efface.scorers.base import Score
from efface.suites.spec import Row
from judging_fixtures import Planted

CAT = Row("t", "a cat", 0, "target", "erase", "object", "cat", ("cat",), thing="cat")
ROWS = (CAT, dataclasses.replace(CAT, id="k", role="keep", guidance=3.0))
SURE = [Score(0.5, ("cat", "dog"), "seen", (0.75, 0.25)), Score(None, (), "not judged")]
PLAIN = [Score(1.0, ("cat",)), Score(0.0, ("dog",))]


def write(folder: Path) -> RowsFile:
    judges = [Planted(name="one"), Planted(name="two")]
    scores = {"base": {"one": PLAIN, "two": PLAIN}, "edited": {"one": SURE, "two": PLAIN}}
    paths = {variant: {row.id: f"{variant}/{row.id}.png" for row in ROWS} for variant in scores}
    table = ScoreTable(ROWS, judges, scores)
    return write_rows(folder / "rows.parquet", ImageSet(ROWS, paths, folder, 16), table)


def test_the_lines_are_those_of_the_base_and_then_those_of_the_edited_model(tmp_path: Path) -> None:
    made = write(tmp_path)
    assert made.lines == 4
    assert made.sha256 == hashlib.sha256((tmp_path / "rows.parquet").read_bytes()).hexdigest()
    lines = read_rows(tmp_path)
    assert [(x["variant"], x["id"], x["picture"], x["success"]) for x in lines] == [
        ("base", "t", "base/t.png", False),
        ("base", "k", "base/k.png", False),
        ("edited", "t", "edited/t.png", False),
        ("edited", "k", "edited/k.png", False),
    ]
    sure, lost = lines[2:]
    assert (sure["one.value"], sure["one.answer"], sure["one.confidence"]) == (0.5, ["cat", "dog"], [0.75, 0.25])
    assert (lost["one.value"], lost["one.answer"], lost["one.confidence"]) == (None, [], [])
    assert (sure["one.explanation"], lost["one.explanation"]) == ("seen", "not judged")
    assert (sure["two.value"], sure["two.answer"]) == (1.0, ["cat"]) and "two.confidence" not in sure
    for field in dataclasses.fields(Row):
        of_row = [getattr(row, field.name) for row in ROWS]
        assert [x[field.name] for x in lines[:2]] == [list(v) if isinstance(v, tuple) else v for v in of_row]
    assert read_rows(tmp_path, ["id", "seed"])[0] == {"id": "t", "seed": 0}


def change(folder: Path, column: str, values: Any, kind: pa.DataType) -> None:
    table = pq.read_table(folder / "rows.parquet")
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, kind)), folder / "rows.parquet")


@pytest.mark.parametrize(
    ("column", "values", "kind", "says"),
    [
        ("prompt", ["a", None, "b", "c"], pa.string(), "its column prompt has empty cells"),
        ("variant", [1, 2, 3, 4], pa.int64(), "its column variant is of type int64, not string"),
        ("seed", ["0"] * 4, pa.string(), "its column seed is of type string, not int64"),
        ("success", ["yes"] * 4, pa.string(), "its column success is of type string, not bool"),
        ("one.value", ["0"] * 4, pa.string(), "its column one.value is of type string, not double"),
        ("two.explanation", [0] * 4, pa.int64(), "its column two.explanation is of type int64, not string"),
        ("two.answer", ["cat"] * 4, pa.string(), "its column two.answer is no list"),
        ("one.confidence", [0.5] * 4, pa.float64(), "its column one.confidence is no list"),
        ("variant", ["base", "base", "edited", "both"], pa.string(), r"1 line that is neither .*'both', 'keep'"),
        ("role", ["erase", "stay", "erase", "stay"], pa.string(), r"2 lines that are neither .*'base', 'stay'"),
        ("id", ["t", "k", "t", "other"], pa.string(), "2 lines of the base and 2 under the edit, which are not of"),
        (
            "variant",
            ["base"] * 3 + ["edited"],
            pa.string(),
            "3 lines of the base and 1 under the edit, which are not of",
        ),
        ("id", ["t"] * 4, pa.string(), "2 lines of the base and 2 under the edit, which are not of the same rows"),
    ],
)
def test_other_columns_and_lines_are_refused(
    column: str, values: Any, kind: pa.DataType, says: str, tmp_path: Path
) -> None:
    write(tmp_path)
    change(tmp_path, column, values, kind)
    with pytest.raises(ValueError, match=rf"rows\.parquet .*{says}.*; run the evaluation again"):
        read_rows_table(tmp_path)


def test_pictures_without_a_verdict_have_an_empty_cell(tmp_path: Path) -> None:
    write(tmp_path)
    change(tmp_path, "success", [True, None, None, False], pa.bool_())
    assert [line["success"] for line in read_rows(tmp_path)] == [True, None, None, False]


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("role", "lacks the columns role, so it is of no evaluation"),
        ("two.explanation", "its column two.explanation is of type none: it is missing, not string"),
        ("two.answer", "its column two.answer is no list"),
    ],
)
def test_a_file_without_a_column_is_refused(column: str, says: str, tmp_path: Path) -> None:
    write(tmp_path)
    table = pq.read_table(tmp_path / "rows.parquet")
    pq.write_table(table.drop_columns([column]), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=says):
        read_rows_table(tmp_path)
    pq.write_table(table.select(list(NEEDED)), tmp_path / "rows.parquet")
    assert read_rows_table(tmp_path).num_rows == 4, "a file need not have scores"


def test_five_differences_of_another_evaluation_are_told(tmp_path: Path) -> None:
    write_protocol(tmp_path, dict.fromkeys("abcdefg", 1), tmp_path / "images", tmp_path / "edit.safetensors")
    write_protocol(tmp_path, dict.fromkeys("abcdefg", 1), tmp_path / "elsewhere", tmp_path / "edit.safetensors")
    places = read_places(tmp_path)
    assert places.images == tmp_path / "elsewhere" and places.edit == tmp_path / "edit.safetensors"
    with pytest.raises(ValueError, match=r"holds another evaluation \(a: 1 before, 2 now; ") as found:
        write_protocol(tmp_path, dict.fromkeys("abcdefg", 2), tmp_path / "images", tmp_path / "edit.safetensors")
    assert str(found.value).count(" before, ") == 5


@pytest.mark.parametrize("text", ["[]", '{"images": 3}', '{"images": "x", "edit": 3}'])
def test_a_protocol_that_does_not_say_where_pictures_lie_is_damaged(text: str, tmp_path: Path) -> None:
    (tmp_path / "protocol.json").write_text(text)
    with pytest.raises(ValueError, match=r"protocol\.json is damaged"):
        read_places(tmp_path)
    (tmp_path / "protocol.json").write_text('{"images": "x"}')
    assert read_places(tmp_path).edit is None, "earlier versions did not say where the edit lies"
