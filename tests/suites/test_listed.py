"""Suites from files: the field's layouts as people have them, and rows that can't be right."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from efface.concept import Erasure
from efface.suites.listed import read_list
from efface.suites.spec import Suite

I2P = ["", "prompt", "categories", "nudity_percentage", "evaluation_seed", "evaluation_guidance", "case_number"]
NUDE = [
    ["0", 'a "strange", quiet room', "violence, self-harm", "0.0", "4261553411", "13", "0"],
    ["1", "two lines\nof one prompt", "sexual", "60.0", "150", "7.5", "1"],
]
CHURCH = ("church", "Church", "church, church building", "CHURCH_BUILDING")


def write(path: Path, header: list[str], rows: list[list[str]], encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def list_groups(suite: Suite) -> dict[str, list[str]]:
    return {g.name: [r.concept for r in suite.select_group(g.name)] for g in suite.spec.groups}


def write_imagenette(path: Path, label: str = "label_str", encoding: str = "utf-8", each: int = 3) -> Path:
    names = ["Church", "Tench", "Chain Saw, chainsaw"]
    rows = [[str(i), str(i), f"Image of {n}", n, f"{1000 + i}.0"] for i, n in enumerate(names * each)]
    return write(path, ["Unnamed: 0", "case_number", "prompt", label, "evaluation_seed"], rows, encoding)


@pytest.mark.parametrize("label", ["label_str", "class"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_classes_are_erased_or_kept_by_their_label(tmp_path: Path, label: str, encoding: str) -> None:
    file = write_imagenette(tmp_path / "imagenette.csv", label, encoding)
    suite = read_list(file, Erasure(("chainsaw",), keep=("tench",)))
    assert list_groups(suite) == {
        "target": ["Chain Saw, chainsaw"] * 3,
        "seen": ["Tench"] * 3,
        "unseen": ["Church"] * 3,
    }
    row = suite.select_group("target")[0]
    assert (row.prompt, row.seed, row.role, row.asks) == ("Image of Chain Saw, chainsaw", 1002, "erase", "object")
    assert row.counts == ("Chain Saw, chainsaw",) and row.guidance is None
    assert {r.role for r in (*suite.select_group("seen"), *suite.select_group("unseen"))} == {"keep"}
    assert suite.spec.name == "imagenette" and len({r.id for r in suite.rows}) == 9
    assert suite.labels == ("Chain Saw, chainsaw", "Tench", "Church")


@pytest.mark.parametrize("name", CHURCH)
def test_a_target_is_found_in_every_spelling(tmp_path: Path, name: str) -> None:
    rows = [["a", "1", "church, church building"], ["b", "2", "tench"]]
    suite = read_list(write(tmp_path / "a.csv", ["prompt", "evaluation_seed", "class"], rows), Erasure((name,)))
    assert list_groups(suite) == {"target": ["church, church building"], "unseen": ["tench"]}


def test_words_that_fitting_used_make_a_label_seen(tmp_path: Path) -> None:
    suite = read_list(write_imagenette(tmp_path / "a.csv"), Erasure(("church",)), used=("a", "TENCH"))
    assert set(list_groups(suite)["seen"]) == {"Tench"}


def test_another_file_is_another_version(tmp_path: Path) -> None:
    one, other = (read_list(write_imagenette(tmp_path / "a.csv", each=n), Erasure(("church",))) for n in (2, 3))
    assert one.spec.version != other.spec.version


def test_i2p_asks_for_nudity_where_that_is_erased(tmp_path: Path) -> None:
    file = write(tmp_path / "unsafe.csv", I2P, NUDE)
    suite = read_list(file, Erasure(("nudity",)))
    assert [(r.role, r.asks, r.group) for r in suite.rows] == [("erase", "nudity", "target")] * 2
    assert {r.concept for r in suite.rows} == {"nudity"}
    assert [r.prompt for r in suite.rows] == ['a "strange", quiet room', "two lines\nof one prompt"]
    assert [(r.seed, r.guidance) for r in suite.rows] == [(4261553411, 13.0), (150, 7.5)]
    other = read_list(file, Erasure(("van gogh",)))
    assert [(r.role, r.asks, r.group) for r in other.rows] == [("keep", "match", "caption")] * 2
    hub = [c.replace("evaluation_seed", "sd_seed").replace("evaluation_guidance", "sd_guidance_scale") for c in I2P]
    assert read_list(write(tmp_path / "hub.csv", hub, NUDE), Erasure(("nudity",))).rows == suite.rows


def test_a_label_of_nudity_is_for_the_detector(tmp_path: Path) -> None:
    rows = [["nudity", "1", "nudity"], ["women", "2", "women"]]
    suite = read_list(write(tmp_path / "a.csv", ["prompt", "evaluation_seed", "label_str"], rows), Erasure(("nudity",)))
    assert [(r.group, r.asks, r.concept) for r in suite.rows] == [
        ("target", "nudity", "nudity"),
        ("unseen", "object", "women"),
    ]


def test_artists_go_by_their_surname_too(tmp_path: Path) -> None:
    rows = [["a field", "1", "Vincent van Gogh"], ["a lake", "2", "Kelly McKernan"]]
    file = write(tmp_path / "art.csv", ["prompt", "evaluation_seed", "artist"], rows)
    for name in ("van gogh", "Van_Gogh", "Vincent van Gogh"):
        suite = read_list(file, Erasure((name,)))
        assert list_groups(suite) == {"target": ["Vincent van Gogh"], "unseen": ["Kelly McKernan"]}
        assert suite.rows[0].asks == "style" and suite.rows[0].style == "Vincent van Gogh"


def test_captions_ask_for_what_they_name_and_else_for_nothing_but_how_they_change(tmp_path: Path) -> None:
    table = pa.table({"image_id": [7, 8], "captions": [["A bus.", "One bus."], ["Two cats."]]})
    pq.write_table(table, tmp_path / "coco.parquet")
    suite = read_list(tmp_path / "coco.parquet", Erasure(("cat",)))
    assert [(r.prompt, r.role, r.asks, r.counts) for r in suite.rows] == [
        ("Two cats.", "erase", "object", ("cat",)),
        ("A bus.", "keep", "match", ()),
    ]
    for target in ("dog", "nudity", "van gogh"):
        again = read_list(tmp_path / "coco.parquet", Erasure((target,)))
        assert [(r.group, r.asks) for r in again.rows] == [("caption", "match")] * 2
        assert {r.seed for r in suite.rows} == {r.seed for r in again.rows} and len({r.seed for r in suite.rows}) == 2


def test_two_things_are_asked_for_one_by_one(tmp_path: Path) -> None:
    rows = [["a cat on a bus", "1", "cat", "bus"], ["a cup on a book", "2", "cup", "book"]]
    file = write(tmp_path / "two.csv", ["prompt", "evaluation_seed", "class", "second"], rows)
    suite = read_list(file, Erasure(("bus",)))
    told = {r.group: (r.role, r.counts, r.second, r.prompt) for r in suite.rows}
    assert told == {
        "target": ("erase", ("bus",), "cat", "a cat on a bus"),
        "beside": ("keep", ("cat",), "bus", "a cat on a bus"),
        "pair": ("keep", ("cup",), "book", "a cup on a book"),
    }


def test_fewer_pictures_are_spread_over_the_labels(tmp_path: Path) -> None:
    suite = read_list(
        write_imagenette(tmp_path / "a.csv", each=10), Erasure(("church",)), per_group=5, sizes={"target": 2}
    )
    assert {g: len(rows) for g, rows in list_groups(suite).items()} == {"target": 2, "unseen": 5}
    assert sorted(list_groups(suite)["unseen"]) == ["Chain Saw, chainsaw"] * 2 + ["Tench"] * 3
    only = read_list(write_imagenette(tmp_path / "a.csv"), Erasure(("church",)), only=("target",))
    assert {r.group for r in only.rows} == {"target"}
    with pytest.raises(ValueError, match="no group 'near'; its groups are target, unseen"):
        read_list(write_imagenette(tmp_path / "a.csv"), Erasure(("church",)), only=("near",))


def test_fewer_pictures_are_a_sample_of_the_whole_list_and_not_its_beginning(tmp_path: Path) -> None:
    rows = [[f"prompt {i}", str(i), "church"] for i in range(400)]
    file = write(tmp_path / "sorted.csv", ["prompt", "evaluation_seed", "class"], rows)
    few, more = (read_list(file, Erasure(("church",)), per_group=n).rows for n in (40, 80))
    seeds = [row.seed for row in few]
    assert len(seeds) == 40 and seeds == sorted(seeds), "in the list's order"
    assert all(sum(low <= seed < low + 100 for seed in seeds) >= 3 for low in (0, 100, 200, 300))
    assert set(seeds) < {row.seed for row in more}, "more pictures have all that fewer have"
    assert few == read_list(file, Erasure(("church",)), per_group=40).rows


def test_a_file_without_the_target_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no label of a is churhc: every row is kept; did you mean 'Church'"):
        suite = read_list(write_imagenette(tmp_path / "a.csv"), Erasure(("churhc",)))
    assert set(list_groups(suite)) == {"unseen"}


HEADER = ["case_number", "prompt", "evaluation_seed", "evaluation_guidance", "class"]
GOOD = ["0", "a cat", "5", "7.5", "cat"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (["1", "a cat", "many", "7.5", "cat"], "line 3: evaluation_seed is 'many', not a whole number"),
        (["1", "a cat", "1.5", "7.5", "cat"], "line 3: evaluation_seed is '1.5', not a whole number"),
        (["1", "a cat", "-4", "7.5", "cat"], "line 3: evaluation_seed is -4; it must be"),
        (["1", "a cat", "", "7.5", "cat"], "line 3: evaluation_seed is '', not a whole number"),
        (["1", "a cat", "1", "nan", "cat"], "line 3: evaluation_guidance is 'nan'"),
        (["1", "a cat", "1", "7", ""], "line 3: class is empty"),
        (["0", "a cat", "1", "7", "cat"], "line 3: case_number 0 stands on line 2 already"),
        (["1", "a cat", "1", "7"], "line 3: 4 cells, but the header has 5"),
        (["1", "a, cat", "1", "7", "cat", "x"], "line 3: 6 cells, but the header has 5"),
    ],
)
def test_malformed_rows_are_named_by_their_line(tmp_path: Path, row: list[str], says: str) -> None:
    file = write(tmp_path / "bad.csv", HEADER, [GOOD, row, ["7", "a dog", "3", "", "dog"]])
    with pytest.raises(ValueError, match=says) as raised:
        read_list(file, Erasure(("cat",)))
    assert "bad.csv" in str(raised.value) and "line 4" not in str(raised.value)


def test_lines_are_those_on_which_rows_begin_and_many_are_summed_up(tmp_path: Path) -> None:
    rows = [[str(i), f"two\nlines {i}", "x", "", "cat"] for i in range(8)]
    with pytest.raises(ValueError, match=r"line 2: .*line 4: .*line 6: .*line 10: .*; and 3 more"):
        read_list(write(tmp_path / "bad.csv", HEADER, rows), Erasure(("cat",)))


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    erasure = Erasure(("cat",))
    with pytest.raises(FileNotFoundError, match="no file"):
        read_list(tmp_path / "none.csv", erasure)
    with pytest.raises(ValueError, match=r"no column prompt or caption .* its columns are a, b"):
        read_list(write(tmp_path / "a.csv", ["a", "b"], [["1", "2"]]), erasure)
    with pytest.raises(ValueError, match="no rows"):
        read_list(write(tmp_path / "a.csv", HEADER, []), erasure)
    with pytest.raises(ValueError, match="two columns 'prompt', which differ"):
        read_list(write(tmp_path / "a.csv", ["prompt", "prompt"], [["1", "2"]]), erasure)
    with pytest.raises(ValueError, match="not UTF-8"):
        read_list(write(tmp_path / "a.csv", HEADER, [["0", "猫在睡觉", "1", "", "cat"]], "gbk"), erasure)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="damaged or no parquet"):
        read_list(tmp_path / "a.parquet", erasure)
    (tmp_path / "open.csv").write_text('prompt,class\n"a cat,cat\n')
    with pytest.raises(ValueError, match="line 2: unexpected end of data"):
        read_list(tmp_path / "open.csv", erasure)


def test_lines_that_repeat_another_are_left_out_for_they_would_count_one_picture_twice(tmp_path: Path) -> None:
    """A list that repeats its easiest prompt would give a narrow interval that nothing stands behind."""
    file = tmp_path / "a.csv"
    again = "a cat,1,cat\n" * 50
    file.write_text(f"prompt,evaluation_seed,label\na cat,1,cat\na cat,2,cat\na dog,1,dog\n{again}")
    suite = read_list(file, Erasure(("cat",)))
    assert [(row.prompt, row.seed) for row in suite.rows] == [("a cat", 1), ("a cat", 2), ("a dog", 1)]
    assert suite.summary is not None and len(suite.summary.left_out) == 50
    assert "count one picture twice" in suite.summary.left_out[0].why
    file.write_text("prompt\na cat\na cat\n")  # without seeds, each line has one of its own
    assert len(read_list(file, Erasure(("cat",))).rows) == 2


def test_labels_of_one_name_are_one_concept_however_they_are_spelled(tmp_path: Path) -> None:
    rows = [["a cat", "Cat", "1"], ["a cat on a mat", "cat ", "2"], ["a dog", "dog", "3"], ["the dog", " DOG", "4"]]
    file = write(tmp_path / "spelled.csv", ["prompt", "class", "seed"], [*rows, ["a cat", "CAT", "1"]])
    suite = read_list(file, Erasure(("cat",)))
    assert suite.labels == ("Cat", "dog") and [row.concept for row in suite.rows] == ["Cat", "Cat", "dog", "dog"]
    assert suite.summary and [row.line for row in suite.summary.left_out] == [6]


def test_a_prompt_that_names_nudity_by_two_targets_is_one_row(tmp_path: Path) -> None:
    file = write(tmp_path / "nude.csv", ["prompt", "seed"], [["a nude, naked woman", "1"], ["a naked man, nude", "2"]])
    suite = read_list(file, Erasure(("nude", "naked")))
    assert [row.id for row in suite.rows] == ["target/nudity/00000", "target/nudity/00001"]
