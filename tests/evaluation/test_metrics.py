"""From scores to numbers: nudity at every threshold, means of what is scored, guidance of single rows."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from efface.evaluation.images import draw_images, find_chunk, make_chunk_key, plan_chunks
from efface.evaluation.judging import ScoreTable, judge_images
from efface.evaluation.metrics import measure_groups
from efface.records.report import Drawing, Measure
from efface.scorers.base import Score
from efface.scorers.nudenet import NudeNet
from efface.scorers.pixels import Pixels
from efface.suites.spec import GroupSpec, Row, Suite, SuiteSpec
from judging_fixtures import Planted

GROUPS = (
    GroupSpec("target", "labels", "erase", "nudity", 4, "nudity"),
    GroupSpec("caption", "labels", "keep", "match", 2, "captions"),
)
SPEC = SuiteSpec("i2p-like", "1", "", "", "", "labels", GROUPS)
NUDE = Row("t0", "a figure", 0, "target", "erase", "nudity", "nudity", ("nudity",))
CAPTION = Row("c0", "a bench", 0, "caption", "keep", "match", "caption", ())


def build_detections(*confidences: float) -> Score:
    return Score(max(confidences, default=0.0), ("BELLY_EXPOSED",) * len(confidences), "", tuple(confidences))


LOST = Score(None, (), "failed")
BASE = [
    build_detections(0.9, 0.76),
    build_detections(0.5),
    build_detections(),
    build_detections(0.62, 0.3),
    build_detections(),
    build_detections(0.31),
]
EDITED = [build_detections(0.46), build_detections(), build_detections(), LOST, build_detections(), build_detections()]


@pytest.fixture(scope="module")
def nudity() -> tuple[ScoreTable, list[Measure]]:
    rows = [dataclasses.replace(NUDE, id=f"t{i}") for i in range(4)]
    rows += [dataclasses.replace(CAPTION, id=f"c{i}") for i in range(2)]
    table = ScoreTable(rows, [NudeNet()], {"base": {"nudenet": BASE}, "edited": {"nudenet": EDITED}})
    return table, measure_groups(table, Suite(SPEC, ("nudity",), tuple(rows)))


def count_by_hand(scores: Sequence[Score], over: float) -> tuple[float, float]:
    """Share of pictures with a detection, and detections a picture, of those that were judged."""
    judged = [s.confidence for s in scores if s.value is not None]
    flat = [(i, c) for i, found in enumerate(judged) for c in found if c > over]
    return len({i for i, _ in flat}) / len(judged), len(flat) / len(judged)


def test_nudity_is_counted_by_picture_and_by_detection_at_every_threshold(
    nudity: tuple[ScoreTable, list[Measure]],
) -> None:
    found = [m for m in nudity[1] if m.metric in ("ner", "detections")]
    assert len(found) == 2 * 2 * 7
    for m in found:
        part = slice(0, 4) if m.group == "target" else slice(4, 6)
        which = 0 if m.metric == "ner" else 1
        assert m.threshold in NudeNet.thresholds and m.judge == "nudenet" and f"over {m.threshold:g}" in m.title
        for estimate, scores in ((m.base, BASE[part]), (m.edited, EDITED[part])):
            assert estimate.value == pytest.approx(count_by_hand(scores, m.threshold)[which])
            assert estimate.n + estimate.unscored == len(scores)
        assert m.unit == ("share" if m.metric == "ner" else "number")
    at = [m for m in found if m.metric == "ner" and m.group == "target"]
    assert [m.threshold for m in at] == [0.3, 0.45, 0.5, 0.6, 0.7, 0.75, 0.8]
    assert all(a.base.value >= b.base.value for a, b in itertools.pairwise(at))  # type: ignore[operator]
    assert at[0].edited.unscored == 1


def test_the_verdict_on_a_picture_takes_the_detectors_own_threshold(nudity: tuple[ScoreTable, list[Measure]]) -> None:
    table, found = nudity
    (gone,) = [m for m in found if m.metric == "esr1" and m.judge == "all"]
    assert gone.group == "target" and (gone.base.value, gone.base.n) == (0.25, 4)
    assert (gone.edited.value, gone.edited.n, gone.edited.unscored) == (pytest.approx(2 / 3), 3, 1)
    assert [table.find_success("base", i) for i in range(4)] == [False, False, True, False]
    assert [table.find_success("edited", i) for i in range(4)] == [False, True, True, None]
    assert table.find_success("base", 4) is None
    strict = ScoreTable(table.rows, [NudeNet(threshold=0.6)], table.scores)
    assert [strict.find_success("base", i) for i in range(4)] == [False, True, True, False]


def test_a_picture_without_detections_counts_as_safe_only_where_it_was_looked_at() -> None:
    class Blindfold:
        name, question, threshold, thresholds, version = "blindfold", "nudity", 0.5, (0.5,), "1"
        title, unit, better, share = "blindfold", "confidence", "lower", False

        def identify(self) -> dict[str, str]:
            return {"scorer": "blindfold"}

        def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
            raise RuntimeError("not looking")

    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    assert judge_images([Blindfold()], images, [NUDE, NUDE], images) == [None, None]
    assert judge_images([NudeNet()], images, [NUDE, NUDE], images) == [False, False]


def test_distances_are_means_and_know_what_the_base_drew() -> None:
    rows = [dataclasses.replace(CAPTION, id=f"c{i}") for i in range(3)]
    before = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    after = before.clone()
    after[1], after[2] = 51, 102
    scores = {"base": Pixels().score(before, rows, before), "edited": Pixels().score(after, rows, before)}
    table = ScoreTable(rows, [Pixels()], {variant: {"pixels": found} for variant, found in scores.items()})
    (m,) = measure_groups(table, Suite(SPEC, (), tuple(rows)))
    assert (m.metric, m.judge, m.unit) == ("pixels", "all", "number")
    assert (m.base.value, m.edited.value) == (0, pytest.approx(0.2))
    assert m.drop and m.drop.value == pytest.approx(-0.2)
    names = [Pixels(name="one"), Pixels(name="two")]
    twice = ScoreTable(rows, names, {variant: {"one": found, "two": found} for variant, found in scores.items()})
    assert [m.judge for m in measure_groups(twice, Suite(SPEC, (), tuple(rows)))] == ["one", "two"]


def test_seen_asks_one_judge_or_all_of_the_question() -> None:
    rows = [Row(str(i), "a cat", i, "target", "erase", "object", "cat", ("cat",), thing="cat") for i in range(2)]
    images = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)
    blind = Planted(name="object-blind", labels=("dog", "car"), fails_on="cat")
    assert judge_images([Planted(), Pixels()], images, rows, images) == [True, True]
    assert judge_images([Planted(), blind], images, rows, images) == [True, True]
    assert judge_images([Planted(), blind], images, rows, images, every=True) == [None, None]
    assert judge_images([Pixels()], images, rows, images) == [None, None]


DRAWN: dict[str, Any] = {
    "model": "m",
    "fingerprint": {},
    "decoder": "",
    "edit": "",
    "strength": 1,
    "steps": 2,
    "guidance": 7.5,
    "scheduler": "S",
    "dtype": "float32",
    "compute": "float32",
    "resolution": 512,
}


class Pencil:
    """Draws the guidance that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, int]] = []

    def images(self, prompts: Sequence[str], seeds: Sequence[int], **how: Any) -> Tensor:
        self.asked.append((how["guidance"], len(prompts)))
        own = how["guidance"] if isinstance(how["guidance"], list) else [how["guidance"]] * len(seeds)
        drawn = torch.tensor([s + 100 * (g == 3.0) for s, g in zip(seeds, own, strict=True)], dtype=torch.uint8)
        return drawn[:, None, None, None].expand(-1, 3, 4, 4)


def test_rows_are_drawn_with_the_guidance_that_they_ask_for(tmp_path: Path) -> None:
    drawing = Drawing(**DRAWN)
    guidances = (None, 3.0, 7.5, 3.0, None, None, None, None)
    rows = [dataclasses.replace(NUDE, id=str(i), seed=i, guidance=g) for i, g in enumerate(guidances)]
    pencil = Pencil()
    paths = draw_images(pencil, rows, drawing, tmp_path)
    assert pencil.asked == [(7.5, 4), ([7.5, 7.5, 3.0, 3.0], 4)]
    for row in rows:
        folder = tmp_path / paths[row.id].partition("/")[0]
        assert find_chunk(folder)
    assert len(set(paths.values())) == 8 and len({p.partition("/")[0] for p in paths.values()}) == 2
    draw_images(pencil, rows, drawing, tmp_path)
    assert len(pencil.asked) == 2
    one, two = sorted({path.partition("/")[0] for path in paths.values()})
    shutil.rmtree(tmp_path / one)  # pictures of other rows in a chunk's place are not taken for its own
    shutil.copytree(tmp_path / two, tmp_path / one)
    assert draw_images(pencil, rows, drawing, tmp_path) == paths and len(pencil.asked) == 3
    plain = [dataclasses.replace(r, guidance=None) for r in rows]
    (first, _) = plan_chunks(plain, drawing)
    assert first[0] == drawing and make_chunk_key(plain[:4], drawing) == make_chunk_key(*reversed(first))


def test_a_list_with_a_guidance_of_its_own_in_each_row_is_drawn_in_as_few_batches_as_any() -> None:
    drawing = Drawing(**(DRAWN | {"resolution": 64}))
    rows = [dataclasses.replace(NUDE, id=str(i), seed=i, guidance=1 + i / 10) for i in range(130)]
    assert [len(part) for _, part in plan_chunks(rows, drawing)] == [64, 64, 2]
    kinds = [dataclasses.replace(row, guidance=(1.0, 7.5)[i % 2]) for i, row in enumerate(rows[:128])]
    assert [(how.guidance, len(part)) for how, part in plan_chunks(kinds, drawing)] == [(1.0, 64), (7.5, 64)]
    keys = {make_chunk_key(part, how) for how, part in plan_chunks(rows[:64], drawing)}
    swapped = [dataclasses.replace(a, guidance=b.guidance) for a, b in zip(rows[:64], rows[63::-1], strict=True)]
    assert not keys & {make_chunk_key(part, how) for how, part in plan_chunks(swapped, drawing)}


def build_answered(rows: Sequence[Row], *answers: tuple[str, ...]) -> ScoreTable:
    """The same answers of one judge before and after, a row each."""
    found = [Score(1.0 if a else None, a) for a in answers]
    return ScoreTable(rows, [Planted()], {v: {"object-planted": found} for v in ("base", "edited")})


OBJECTS = SuiteSpec("own", "1", "", "", "", "labels", (GroupSpec("target", "labels", "erase", "object", 3, "cats"),))
CAT = Row("t", "a cat", 0, "target", "erase", "object", "cat", ("cat",), thing="cat")


def test_a_judge_that_answers_with_one_label_is_served() -> None:
    rows = [dataclasses.replace(CAT, id=str(i)) for i in range(3)]
    table = build_answered(rows, ("cat",), ("dog",), ("dog",))
    found = measure_groups(table, Suite(OBJECTS, ("cat",), tuple(rows)))
    assert [(m.metric, m.judge) for m in found] == [("esr1", "all"), ("esr1", "object-planted")]
    assert found[0].edited.value == pytest.approx(2 / 3) and found[0].edited.n == 3


def test_one_label_of_a_picture_of_two_things_may_leave_the_other_open() -> None:
    rows = [dataclasses.replace(CAT, id=str(i), second="dog") for i in range(3)]
    table = build_answered(rows, ("cat",), ("dog",), ("dog", "cat"))
    assert table.successes["edited"] == (False, None, False)


def test_a_judge_that_can_answer_nothing_is_counted_and_not_left_out() -> None:
    rows = [dataclasses.replace(CAT, id=str(i)) for i in range(3)]
    (gone, _) = measure_groups(build_answered(rows, (), (), ()), Suite(OBJECTS, ("cat",), tuple(rows)))
    assert gone.metric == "esr1" and (gone.edited.value, gone.edited.n, gone.edited.unscored) == (None, 0, 3)
