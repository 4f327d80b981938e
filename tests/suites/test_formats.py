"""A list is read the same in every format and encoding, and files that hold none are refused by name."""

from __future__ import annotations

import codecs
import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from efface.concept import Erasure
from efface.files import formats
from efface.suites.listed import read_list


def write_table(rows: list[list[str]], delimiter: str = ",") -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


ROWS = [["prompt", "seed", "class"], ["a cat; café, bar", "5", "cat"], ["a\tdog", "6", "dog"]]
RECORDS = [dict(zip(ROWS[0], row, strict=True)) for row in ROWS[1:]]
DRESSES = {
    "a.csv": write_table(ROWS).encode(),
    "bom.csv": codecs.BOM_UTF8 + write_table(ROWS).encode(),
    "windows.csv": write_table(ROWS).replace("\n", "\r\n").encode(),
    "excel.csv": write_table(ROWS, ";").encode("cp1252"),
    "utf16.csv": write_table(ROWS, "\t").encode("utf-16"),
    "tabs.tsv": write_table(ROWS, "\t").encode(),
    "bars.csv": write_table(ROWS, "|").encode(),
    "trailing.csv": write_table([ROWS[0], *([*row, "", ""] for row in ROWS[1:])]).encode(),
    "twice.csv": write_table([[*row, row[0]] for row in ROWS]).encode(),
    "told.csv": b"sep=;\r\n" + write_table(ROWS, ";").encode(),
    "text.txt": write_table(ROWS).encode(),
    "blank.csv": ("\n\n" + write_table(ROWS) + "\n\n").encode(),
    "a.json": json.dumps(RECORDS).encode(),
    "bom.json": codecs.BOM_UTF8 + json.dumps(RECORDS).encode(),
    "a.jsonl": "\n".join(json.dumps(row) for row in RECORDS).encode(),
    "pandas.json": json.dumps({c: {str(i): row[c] for i, row in enumerate(RECORDS)} for c in ROWS[0]}).encode(),
    "within.json": json.dumps({"info": "x", "data": RECORDS}).encode(),
    "numbered.json": json.dumps({str(i): row for i, row in enumerate(RECORDS)}).encode(),
    "columns.json": json.dumps({c: [row[c] for row in RECORDS] for c in ROWS[0]}).encode(),
}


@pytest.mark.parametrize("name", DRESSES)
def test_a_list_reads_the_same_in_every_dress(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(DRESSES[name])
    suite = read_list(tmp_path / name, Erasure(("cat",)))
    assert [(r.prompt, r.seed, r.group, r.concept) for r in suite.rows] == [
        ("a cat; café, bar", 5, "target", "cat"),
        ("a\tdog", 6, "unseen", "dog"),
    ]
    if name == "excel.csv":
        remarks = ("read as Windows-1252, not UTF-8", "cells are parted by ';'")
        assert suite.summary and suite.summary.remarks == remarks


COCO = {"annotations": [{"image_id": i, "caption": c} for i, c in ((1, "a cat"), (1, "x"), (2, "a cat, asleep"))]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", 'a cat\n\n"a cat, asleep"\n'),
        ("one.csv", 'prompt\na cat\n"a cat, asleep"\n'),
        ("sloppy.csv", "prompt\na cat\na cat, asleep\n"),
        ("bare.csv", 'a cat\n"a cat, asleep"\n'),
        ("a.json", '["a cat", "a cat, asleep"]'),
        ("a.jsonl", '"a cat"\n"a cat, asleep"\n'),
        ("header.txt", 'prompt\na cat\n"a cat, asleep"\n'),
        ("within.json", '{"prompts": ["a cat", "a cat, asleep"]}'),
        ("text.json", '{"Text": ["a cat", "a cat, asleep"], "seed": [1, 2]}'),
        ("labelled.json", '{"cat": ["a cat", "a cat, asleep"]}'),
        ("coco.json", json.dumps(COCO)),
    ],
)
def test_prompts_alone_are_a_list(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    suite = read_list(tmp_path / name, Erasure(("cat",)))
    assert [(r.prompt, r.role) for r in suite.rows] == [("a cat", "erase"), ("a cat, asleep", "erase")]
    assert len({r.seed for r in suite.rows}) == 2


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "", "a.csv has no rows"),
        ("a.csv", "\n\n", "a.csv has no rows"),
        ("a.txt", "", "a.txt has no rows"),
        ("a.json", "[]", "a.json has no rows"),
        ("a.json", "", "a.json has no rows"),
        ("a.json", "3", "a.json holds a int"),
        ("a.json", "[3]", "a.json, row 1: it is neither an object nor a prompt"),
        ("a.json", "{", "a.json, line 1: it is no JSON"),
        ("a.json", "[" * 100_000, "a.json, line 1: .* nested more than 64 deep"),
        ("a.jsonl", '{"prompt": "x"}\n{', "a.jsonl, line 2: it is no JSON"),
        ("a.json", '{"prompt": ["x"], "seed": [1, 2]}', r"columns of \[1, 2\] rows"),
        ("a.csv", "a\0b", "a.csv is no text"),
        ("a.json", '{"a": [{"prompt": "x"}], "b": [{"prompt": "y"}]}', "several lists of objects: 'a', 'b'; give one"),
        ("a.json", '[{"prompt": {"en": "a cat"}}]', "a.json, line 1: prompt is .*, a dict; a text would have worked"),
        ("a.json", '[{"prompt": "a cat"}, {"prompt": 7}]', "a.json, line 2: prompt is '7', a int; a text would"),
        ("a.json", '[{"captions": [3, "a cat"]}]', "a.json, line 1: captions is '3', a int; a text would have worked"),
        ("a.csv", "prompt,seed\na cat,1.23E+09", "line 2: seed is '1.23E.09', of which a spreadsheet kept the first"),
    ],
)
def test_files_that_hold_no_list_are_refused_by_name(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        read_list(tmp_path / name, Erasure(("cat",)))


def test_more_rows_than_anybody_draws_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"prompt": pa.array(["a cat"] * 1_000_001)}), tmp_path / "a.parquet")
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=r"a.parquet has 1,000,001 rows; tables of up to 1,000,000 are read"):
        read_list(tmp_path / "a.parquet", Erasure(("cat",)))
    monkeypatch.setattr(formats, "MOST_ROWS", 1)
    (tmp_path / "a.txt").write_text("a cat\na dog")
    with pytest.raises(ValueError, match=r"a\.txt has 2 rows"):
        read_list(tmp_path / "a.txt", Erasure(("cat",)))


def test_quoted_line_breaks_keep_the_numbers_of_lines(tmp_path: Path) -> None:
    rows = [["prompt", "class"], ["a cat\nasleep", "cat"], ["", "dog"], ["a dog", "dog"]]
    (tmp_path / "a.csv").write_text(write_table(rows))
    suite = read_list(tmp_path / "a.csv", Erasure(("cat",)))
    assert suite.summary and [row.line for row in suite.summary.left_out] == [4]


def test_single_words_in_quotes_keep_them_and_seeds_in_full_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text('"Cat" by "Monet"\n"a cat"\n"\n')
    assert [r.prompt for r in read_list(tmp_path / "a.txt", Erasure(("cat",)), asks="cat").rows] == [
        '"Cat" by "Monet"',
        "a cat",
        '"',
    ]
    (tmp_path / "a.csv").write_text("prompt,seed\na cat,1.234567890e+09\na cat,3034840582.0\n")
    assert [r.seed for r in read_list(tmp_path / "a.csv", Erasure(("cat",))).rows] == [1234567890, 3034840582]


def test_of_several_prompts_in_a_cell_the_first_is_read_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"captions": ["a cat", "a feline"]}, {"captions": ["two cats"]}]')
    suite = read_list(tmp_path / "a.json", Erasure(("cat",)))
    assert [r.prompt for r in suite.rows] == ["a cat", "two cats"]
    assert suite.summary and suite.summary.remarks == ("1 row holds several prompts, of which the first is read",)
