"""What judges' answers become: scores of single pictures, also where a scorer fails, and verdicts of several judges."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from efface.evaluation.judging import (
    ScoreTable,
    Sought,
    count_failures,
    detects_over,
    judge_images,
    score_images,
    score_safely,
)
from efface.scorers.base import Score
from efface.suites.spec import Row
from judging_fixtures import Planted


class Touchy:
    """Gives each picture's first number, and breaks on a batch that holds a 7."""

    name = "touchy"
    question = "touch"
    share = False

    def score(self, images: Any, rows: Any, before: Any) -> list[Score]:
        if (images[:, 0, 0, 0] == 7).any():
            raise ZeroDivisionError("a seven")
        told = zip(images, rows, before, strict=True)
        return [Score(float(image[0, 0, 0]), (row, str(int(base[0, 0, 0])))) for image, row, base in told]


def build_pictures(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def test_the_others_keep_their_scores() -> None:
    found, failed = score_safely(Touchy(), build_pictures(1, 7, 3), ["a", "b", "c"], build_pictures(4, 5, 6))  # type: ignore[arg-type]
    assert failed == 1
    assert [score.value for score in found] == [1.0, None, 3.0]
    assert [score.answer for score in found] == [("a", "4"), (), ("c", "6")]
    assert found[1].explanation == "touchy failed: ZeroDivisionError: a seven"


def test_where_none_fails_they_are_judged_together() -> None:
    found, failed = score_safely(Touchy(), build_pictures(1, 2), ["a", "b"], build_pictures(4, 5))  # type: ignore[arg-type]
    assert failed == 0 and [score.value for score in found] == [1.0, 2.0]


@pytest.mark.parametrize(
    "wrong",
    [
        Score(math.nan),
        Score(math.inf),
        Score(0.5, ("a", "b"), "", (0.1, -math.inf)),
        Score(None, ("a",), "", (math.nan,)),
    ],
)
def test_a_number_that_is_none_is_a_failure_of_that_picture(wrong: Score) -> None:
    class Odd(Touchy):
        name = "odd"

        def score(self, images: Any, rows: Any, before: Any) -> list[Score]:
            return [wrong if row == "b" else Score(1.0, confidence=(0.5,)) for row in rows]

    found, failed = score_safely(Odd(), build_pictures(1, 2, 3), ["a", "b", "c"], build_pictures(1, 2, 3))  # type: ignore[arg-type]
    assert failed == 1 and [score.value for score in found] == [1.0, None, 1.0]
    assert found[1].explanation == "odd failed: its numbers are NaN or infinite" and not found[1].confidence


def test_a_scorer_that_gives_too_few_scores_has_failed_on_all() -> None:
    class Short(Touchy):
        name = "short"

        def score(self, images: Any, rows: Any, before: Any) -> list[Score]:
            return []

    found, failed = score_safely(Short(), build_pictures(1, 2), ["a", "b"], build_pictures(1, 2))  # type: ignore[arg-type]
    assert failed == 2 and {s.explanation for s in found} == {
        "short failed: RuntimeError: short gave 0 scores for 1 picture"
    }


CAT = Row("t", "a cat", 0, "target", "erase", "object", "cat", ("cat", "kitten"), thing="cat")
KEPT = dataclasses.replace(CAT, role="keep")
ONE, TWO = Planted(name="one"), Planted(name="two")


def build_table(rows: Sequence[Row], **answers: Sequence[Sequence[str]]) -> ScoreTable:
    """The answers of judges for each row under the edit; judges named "one" and "two"."""
    judges = [judge for judge in (ONE, TWO) if judge.name in answers]
    found = {name: [Score(1.0 if a else None, tuple(a)) for a in each] for name, each in answers.items()}
    return ScoreTable(rows, judges, {"edited": found})


@pytest.mark.parametrize(
    ("one", "two", "shown_by_one", "shown_by_every"),
    [
        (["cat"], ["cat"], True, True),
        (["cat"], ["dog"], True, False),
        (["dog"], ["kitten"], True, False),
        (["dog"], ["dog"], False, False),
        (["dog"], [], None, False),
        (["cat"], [], True, None),
        ([], [], None, None),
    ],
)
def test_of_two_judges_the_one_less_favourable_to_the_edit_counts(
    one: list[str], two: list[str], shown_by_one: bool | None, shown_by_every: bool | None
) -> None:
    table = build_table([CAT, KEPT], one=[one, one], two=[two, two])
    gone = None if shown_by_one is None else not shown_by_one
    assert table.successes["edited"] == (gone, shown_by_every)
    assert [table.find_success("edited", i) for i in (0, 1)] == [gone, shown_by_every]
    seen = [None if not said else said[0] in ("cat", "kitten") for said in (one, two)]
    for name, alone in zip(("one", "two"), seen, strict=True):
        assert table.find_success("edited", 0, name) == (None if alone is None else not alone)
        assert table.find_success("edited", 1, name) == alone
        assert table.shows("edited", 0, Sought("object", ("cat", "kitten"), judge=name)) == alone


def test_k_labels_count_and_one_more_in_a_picture_of_two_things() -> None:
    said = ["dog", "cat", "car"]
    pair = dataclasses.replace(CAT, second="dog")
    table = build_table([CAT, pair], one=[said, said])
    assert [table.find_success("edited", 0, k=k) for k in (1, 2, 3)] == [True, False, False]
    assert table.find_success("edited", 1) is False
    third = build_table([CAT, pair], one=[["dog", "car", "cat"]] * 2)
    assert [third.find_success("edited", i) for i in (0, 1)] == [True, True]
    assert third.find_success("edited", 1, k=2) is False
    # A judge with k labels for two things has seen this one, or can't decide.
    few = build_table([pair, pair, pair], one=[["dog", "car"], ["dog", "cat"], []])
    assert [few.find_success("edited", i, k=2) for i in range(3)] == [None, False, None]


@pytest.mark.parametrize(("given", "depths"), [((6, 6), [1, 5]), ((6, 5), [1]), ((6, 0), [1, 5]), ((1, 1), [1])])
def test_five_labels_are_compared_where_every_judge_gives_more(given: tuple[int, int], depths: list[int]) -> None:
    labels = ["cat", "dog", "car", "truck", "rose", "bomb"]
    table = build_table([CAT], one=[labels[: given[0]]], two=[labels[: given[1]]])
    assert table.list_depths("object") == depths and table.list_depths("style") == []
    seeing = Planted(question="nudity", name="detector")
    assert ScoreTable([CAT], [seeing], {"edited": {"detector": [Score(1.0, tuple(labels))]}}).list_depths("nudity") == [
        1
    ]


def test_nudity_is_judged_by_detectors_alone() -> None:
    row = dataclasses.replace(CAT, asks="nudity", counts=("nudity",))
    seeing = Planted(question="nudity", name="one")
    table = ScoreTable([row], [seeing], {"edited": {"one": [Score(1.0, ("cat",))]}})
    with pytest.raises(ValueError, match="nudity is judged by detectors, such as nudenet or opennsfw, and one is none"):
        table.find_success("edited", 0)
    assert detects_over(Score(0.6, confidence=(0.2, 0.6)), 0.5) and not detects_over(Score(0.5, confidence=(0.5,)), 0.5)
    assert not detects_over(Score(0.0), 0.0)


def test_failures_are_counted_by_scorer_with_the_first_reason() -> None:
    scores = {
        "base": {"one": [Score(1.0), Score(None, (), "one failed: first")], "two": [Score(None, (), "not judged")] * 2},
        "edited": {"one": [Score(None, (), "one failed: second"), Score(1.0)]},
    }
    assert count_failures(ScoreTable([CAT, CAT], [ONE, TWO], scores)) == {"one": (2, "first")}


def test_pictures_are_judged_by_the_judges_of_their_own_question() -> None:
    style = Planted(question="style", name="style", labels=("flat", "noto"))
    drawn = dataclasses.replace(CAT, asks="style", counts=("flat",), style="flat")
    black, white = (torch.full((2, 3, 2, 2), shade, dtype=torch.uint8) for shade in (0, 255))
    assert judge_images([ONE, style], white, [CAT, drawn], white) == [True, True]
    assert judge_images([ONE, style], black, [CAT, drawn], black) == [False, False]


class Shelf:
    """Pictures in two chunks, of which the first was lost."""

    rows = (CAT, KEPT, dataclasses.replace(CAT, seed=1))

    def __init__(self) -> None:
        self.loaded: list[tuple[str, int]] = []

    def split_chunks(self) -> list[Sequence[Row]]:
        return [self.rows[:2], self.rows[2:]]

    def list_paths(self, variant: str, part: Sequence[Row]) -> list[str]:
        return [f"{variant}-{row.role}-{row.seed}.png" for row in part]

    def load(self, variant: str, part: Sequence[Row]) -> torch.Tensor:
        self.loaded.append((variant, len(part)))
        return build_pictures(*[1 if variant == "base" else 7 if row.seed else 3 for row in part])


def test_scores_are_kept_by_chunk_unless_the_scorer_failed(tmp_path: Path) -> None:
    class Seven(Touchy):
        name, version = "seven", "1"

        def identify(self) -> dict[str, str]:
            return {"scorer": "seven", "version": self.version}

        def score(self, images: Any, rows: Any, before: Any) -> list[Score]:
            if (images == 7).any():
                raise ZeroDivisionError("a seven")
            return [Score(float(image[0, 0, 0])) for image in images]

    told: list[tuple[int, int]] = []

    def judge(variant: str) -> tuple[list[float | None], list[tuple[str, int]]]:
        """The scores, and which chunks were loaded for them."""
        scorer, shelf = Seven(), Shelf()
        found = score_images(
            scorer,  # type: ignore[arg-type]
            shelf,  # type: ignore[arg-type]
            variant,
            tmp_path,
            lambda *done: told.append(done),
        )
        return [score.value for score in found], shelf.loaded

    again = [("edited", 1), ("base", 1)]
    assert judge("edited") == ([3.0, 3.0, None], [("edited", 2), ("base", 2), *again])
    assert judge("edited") == ([3.0, 3.0, None], again)
    assert told == [(2, 3), (3, 3)] * 2
    assert judge("base") == ([1.0] * 3, [("base", 2), ("base", 1)]), "the base's own pictures are loaded once"
    for file in tmp_path.rglob("*.json"):
        file.write_text(file.read_text().replace("3.0", "NaN"))
    assert ("edited", 2) in judge("edited")[1], "what is kept as no number is judged again"


def test_scores_are_kept_on_disk_and_a_file_with_a_number_that_is_none_is_made_anew(tmp_path: Path) -> None:
    """One of two numbers is infinite: neither is taken from the file, and both are asked for again."""
    rows = [Row(str(i), "a cat", i, "target", "erase", "object", "cat", ("cat",), thing="cat") for i in range(2)]
    pictures = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)
    images: Any = SimpleNamespace(
        rows=rows,
        split_chunks=lambda: [rows],
        list_paths=lambda _, part: [f"{row.id}.png" for row in part],
        load=lambda _, part: pictures[: len(part)],
    )
    asked: list[int] = []

    class Counted:
        name = "counted"
        question = "count"
        share = False

        def identify(self) -> dict[str, str]:
            return {"scorer": "counted"}

        def score(self, images: Any, rows: Any, before: Any) -> list[Score]:
            asked.append(len(rows))
            return [Score(float(i)) for i in range(len(rows))]

    scorer: Any = Counted()
    for _ in range(2):
        assert [score.value for score in score_images(scorer, images, "base", tmp_path / "cache")] == [0.0, 1.0]
    assert asked == [2]
    (file,) = (tmp_path / "cache").rglob("*.json")
    file.write_text(file.read_text().replace("1.0", "Infinity"))
    assert [score.value for score in score_images(scorer, images, "base", tmp_path / "cache")] == [0.0, 1.0]
    assert asked == [2, 2]
