"""Published result files against counts made by hand on files in the same layouts."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from efface.evaluation import published
from efface.functional.rates import wilson

CLASSES = ["Cassette Player", "Chain Saw", "Church", "Tench"]
ANSWERS = ["cassette player", "chain saw, chainsaw", "church", "tench", "radio", "chain"]
TOP = [f"{column}_top{k}" for k in range(1, 6) for column in ("category", "index", "scores")]


def write(path: Path, rows: list[list[object]], header: list[str], bom: bool = False) -> Path:
    with path.open("w", encoding="utf-8-sig" if bom else "utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def build_topk_rows(n: int, seed: int = 0) -> list[list[object]]:
    rng = random.Random(seed)
    rows: list[list[object]] = []
    for i in range(n):
        name = CLASSES[i % 4]
        answers = rng.sample(ANSWERS, 5)
        cells = [cell for k, answer in enumerate(answers) for cell in (answer, k, 0.5 / (k + 1))]
        rows.append([i, i, f'Image of "{name}", please', name, 100 + i, *cells])
    return rows


HEADER = ["", "case_number", "prompt", "label_str", "evaluation_seed", *TOP]


@pytest.mark.parametrize("bom", [False, True])
def test_topk_rates_are_those_counted_by_hand(tmp_path: Path, bom: bool) -> None:
    rows = build_topk_rows(200)
    file = write(tmp_path / "eap v1.csv", rows, HEADER, bom)
    found = published.read_published(file, erased=["cassette_player", "chainsaw"])
    assert (found.name, found.kind, found.images) == ("eap v1", "topk", 200)
    assert found.erased == ("Cassette Player", "Chain Saw") and found.kept == ("Church", "Tench")
    exact = dict(zip(CLASSES, ANSWERS, strict=False))
    for k in (1, 5):
        hits = {c: [exact[c] in [r[5 + 3 * j] for j in range(k)] for r in rows if r[3] == c] for c in CLASSES}
        gone = [not hit for c in CLASSES[:2] for hit in hits[c]]
        stay = [hit for c in CLASSES[2:] for hit in hits[c]]
        for metric, values in ((f"esr{k}", gone), (f"psr{k}", stay)):
            rate = found.find(metric)
            assert rate is not None and rate.estimate.value == pytest.approx(sum(values) / len(values))
            assert (rate.estimate.low, rate.estimate.high) == wilson(sum(values), len(values))


def test_kept_classes_may_be_named_and_pictures_without_answer_are_counted(tmp_path: Path) -> None:
    rows = build_topk_rows(40)
    rows[0][5:] = [""] * 15
    found = published.read_published(write(tmp_path / "a.csv", rows, HEADER), ["church"], kept=["tench"])
    esr, psr = found.find("esr1"), found.find("psr1")
    assert found.kept == ("Tench",) and esr and psr and (esr.estimate.n, psr.estimate.n) == (10, 10)
    found = published.read_published(tmp_path / "a.csv", ["Cassette Player"])
    esr = found.find("esr5")
    assert esr and (esr.estimate.n, esr.estimate.unscored) == (9, 1) and "1 of 40" in found.notes[0]


def test_a_prompt_drawn_several_times_is_several_pictures(tmp_path: Path) -> None:
    rows = [[i, 0, *row[2:]] for i, row in enumerate(build_topk_rows(40)) if row[3] == "Church"]
    found = published.read_published(write(tmp_path / "a.csv", rows, HEADER), ["church"])
    assert found.images == 10 and found.kept == () and found.find("psr1") is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows.append([99, *rows[3][1:]]), "line 42: picture 3 stands on line 5 already"),
        (lambda rows: rows[2].pop(), "line 4: 19 cells, but the header has 20"),
        (lambda rows: rows[0].__setitem__(5, ""), "line 2: category_top1 is empty"),
        (lambda rows: rows[1].__setitem__(3, " "), "line 3: it does not say"),
        (lambda rows: rows[1].__setitem__(10, 0.9), "line 3: scores .* do not fall"),
        (lambda rows: rows[1].__setitem__(10, "high"), "line 3: scores .* are no numbers"),
    ],
)
def test_rows_that_can_not_be_right_are_named_by_their_line(tmp_path: Path, change, says: str) -> None:
    rows = build_topk_rows(40)
    change(rows)
    with pytest.raises(ValueError, match=says):
        published.read_published(write(tmp_path / "a.csv", rows, HEADER), ["church"])


def test_what_is_asked_must_be_there(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", build_topk_rows(8), HEADER)
    with pytest.raises(ValueError, match="no class 'chuch'; did you mean 'Church'"):
        published.read_published(file, ["chuch"])
    with pytest.raises(ValueError, match='--erased "Cassette Player"'):
        published.read_published(file)
    with pytest.raises(ValueError, match="erased and kept"):
        published.read_published(file, ["church"], kept=["Church", "Tench"])
    with pytest.raises(ValueError, match="no column label_str or class"):
        published.read_published(write(tmp_path / "b.csv", [["x", 1]], ["category_top1", "n"]), ["x"])
    with pytest.raises(ValueError, match=r"neither category_top1 .* nor NudeNet_label.*are a, b"):
        published.read_published(write(tmp_path / "c.csv", [[1, 2]], ["a", "b"]), ["x"])
    with pytest.raises(FileNotFoundError):
        published.read_published(tmp_path / "none.csv")


SEEN = {
    "0": [("FEET_EXPOSED", 0.81), ("FACE_MALE", 0.9)],
    "1": [],
    "2": [("ANUS_EXPOSED", 0.95)],
    "3": [("BELLY_EXPOSED", 0.31), ("FEMALE_BREAST_EXPOSED", 0.5), ("BELLY_EXPOSED", 0.29)],
}
EXPECTED = {0.3: 2 / 4, 0.5: 1 / 4, 0.8: 1 / 4}


def build_joined() -> list[list[object]]:
    return [[k, k, "-".join(n for n, _ in d), "-".join(str(s) for _, s in d)] for k, d in SEEN.items()]


def build_several() -> list[list[object]]:
    return [[k, k, name, score] for k, d in SEEN.items() for name, score in d or [("", "")]]


NUDE = ["Unnamed: 0", "case_number", "NudeNet_label", "NudeNet_score"]


@pytest.mark.parametrize("rows", [build_joined(), build_several()], ids=["joined", "several rows a picture"])
def test_ner_of_both_layouts(tmp_path: Path, rows: list[list[object]]) -> None:
    found = published.read_published(write(tmp_path / "n.csv", rows, NUDE), thresholds=tuple(EXPECTED))
    assert found.kind == "nudenet" and found.images == 4 and found.notes == ()
    for threshold, value in EXPECTED.items():
        rate = found.find("ner", threshold)
        assert rate and rate.estimate.value == value and rate.estimate.n == 4
        assert (rate.estimate.low, rate.estimate.high) == wilson(round(4 * value), 4)
    many = found.find("detections", 0.3)
    assert many and many.unit == "number" and many.estimate.value == 3 / 4


def test_labels_that_count_are_a_choice_and_of_either_nudenet(tmp_path: Path) -> None:
    rows: list[list[object]] = [["0", "0", "EXPOSED_FEET-EXPOSED_BREAST_F", "0.6-0.7"], ["1", "1", "EXPOSED_FEET", 0.8]]
    file = write(tmp_path / "old.csv", rows, NUDE)
    for labels, value in ((["EXPOSED_BREAST_F"], 0.5), (["FEET_EXPOSED"], 1), (published.EXPOSED, 1)):
        rate = published.read_published(file, labels=labels, thresholds=[0.5]).find("ner", 0.5)
        assert rate and rate.estimate.value == value
    with pytest.raises(ValueError, match="no part 'FOOT_EXPOSED'"):
        published.read_published(file, labels=["FOOT_EXPOSED"])


def test_pictures_never_looked_at_are_not_safe(tmp_path: Path) -> None:
    rows = [*build_joined(), ["4", "4", "0.0", ""]]
    found = published.read_published(write(tmp_path / "n.csv", rows, NUDE))
    rate = found.find("ner", 0.3)
    assert rate and (rate.estimate.value, rate.estimate.n, rate.estimate.unscored) == (0.5, 4, 1)
    assert "1 of 5 pictures were never looked at" in found.notes


def test_a_file_without_confidences_and_one_that_was_cut_say_so(tmp_path: Path) -> None:
    bare = published.read_published(write(tmp_path / "n.csv", [row[:3] for row in build_joined()], NUDE[:3]))
    rate = bare.find("ner")
    assert rate and rate.estimate.value == 0.5 and [r.threshold for r in bare.rates] == [None, None]
    assert "keeps no confidences" in bare.notes[0]
    cut = published.read_published(write(tmp_path / "c.csv", [row for row in build_joined() if row[1] in "012"], NUDE))
    assert "no confidence is under 0.81" in cut.notes[0]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (["9", "9", "FEET_EXPOSED-FACE_MALE", "0.5"], "line 6: 2 labels but 1 score"),
        (["9", "9", "UNSAFE", "0.5"], "line 6: NudeNet finds no 'UNSAFE'"),
        (["9", "9", "FEET_EXPOSED", "50"], "line 6: scores '50' are not between 0 and 1"),
        (["9", "", "FEET_EXPOSED", "0.5"], "line 6: case_number is empty"),
    ],
)
def test_detections_that_can_not_be_right_are_refused(tmp_path: Path, row: list[object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        published.read_published(write(tmp_path / "n.csv", [*build_joined(), row], NUDE))


def test_pictures_must_be_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column case_number or image_id"):
        published.read_published(write(tmp_path / "n.csv", [["FEET_EXPOSED", 0.5]], NUDE[2:]))
