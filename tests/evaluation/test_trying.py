"""Which scorers are tried before drawing, on what, and which results count as having measured something."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from torch import Tensor

from efface.evaluation.images import digest
from efface.evaluation.judging import ScoreTable
from efface.evaluation.trial import TRIED, Unmeasured, require_measured, try_scorers
from efface.origin import identify
from efface.records.report import Estimate, Measure
from efface.scorers import Judge
from efface.scorers.base import Score
from efface.suites.spec import Row
from judging_fixtures import Features, OfSets, Planted

ROW = Row("0", "a cat", 0, "target", "erase", "object", "cat", ("cat",), thing="cat")
STYLED = dataclasses.replace(ROW, id="s", group="styles", asks="style", counts=("flat",), style="flat")
MATCH = dataclasses.replace(ROW, id="m", group="captions", role="keep", asks="match", counts=())


@dataclass(frozen=True)
class Watched(Planted):
    """A judge that fails on pictures of one colour, or on all, and notes what it was shown."""

    broken: bool = False
    needs_colour: bool = False
    seen: list[tuple[tuple[int, ...], Row]] = field(default_factory=list, compare=False)

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        self.seen.extend((tuple(images.shape), row) for row in rows)
        if self.broken or (self.needs_colour and images.unique().numel() == 1):
            raise RuntimeError(f"no answer to {rows[0].id}")
        return [Score(1.0, ("cat", "dog"))] * len(rows)


def test_a_scorer_is_tried_on_one_row_of_each_group_of_its_question_until_it_answers() -> None:
    rows = [STYLED, *(dataclasses.replace(ROW, id=str(i), group=f"g{i // 2}") for i in range(2 * TRIED + 6))]
    fine, broken = Watched(), Watched(broken=True)
    try_scorers([fine], rows, 6)
    ((shape, tried),) = fine.seen
    assert shape == (1, 3, 6, 6) and tried in rows[1:]
    with pytest.raises(Unmeasured, match=r"scorer object-planted fails on every picture: .*: no answer to") as told:
        try_scorers([broken], rows, 6)
    shown = list(dict.fromkeys(row for _, row in broken.seen))
    assert len(shown) == TRIED == len({row.group for row in shown}) and set(shown) <= set(rows[1:])
    assert str(told.value).endswith(f"no answer to {shown[0].id}"), "the first reason is told"


def test_a_scorer_is_tried_on_random_colours_where_it_fails_on_a_black_picture() -> None:
    picky = Watched(needs_colour=True)
    try_scorers([picky], [ROW], 4)
    assert len(picky.seen) > 1


def test_a_scorer_of_another_question_is_tried_on_any_row() -> None:
    other = Watched(question="mood")
    try_scorers([other], [STYLED], 4)
    assert other.seen == [((1, 3, 4, 4), STYLED)]


def test_a_scorer_with_scores_in_the_folder_is_not_tried_and_the_next_one_is(tmp_path: Path) -> None:
    done, broken = Watched(name="done", broken=True), Watched(name="new", broken=True)
    for judge in (done, broken):
        (tmp_path / f"{judge.name}-{digest(identify(judge))[:12]}").mkdir()
    (tmp_path / f"done-{digest(identify(done))[:12]}" / "x.json").touch()
    try_scorers([done], [ROW], 4, tmp_path)
    assert done.seen == []
    with pytest.raises(Unmeasured, match="scorer new fails"):
        try_scorers([done, broken], [ROW], 4, tmp_path)
    with pytest.raises(Unmeasured, match="scorer done fails"):
        try_scorers([done], [ROW], 4)


def test_a_network_that_several_scorers_of_sets_share_is_tried_once(tmp_path: Path) -> None:
    network = Features()
    judges: list[Judge] = [OfSets(network), Watched(), OfSets(network, name="others")]
    try_scorers(judges, [ROW], 4, tmp_path)
    assert network.asked == [1]
    folder = tmp_path / f"features-{digest(identify(network))[:12]}"
    folder.mkdir()
    try_scorers(judges, [ROW], 4, tmp_path)
    assert network.asked == [1, 1], "an empty folder holds no features"
    (folder / "x.safetensors").touch()
    try_scorers(judges, [ROW], 4, tmp_path)
    assert network.asked == [1, 1]


@pytest.mark.parametrize("found", [(float("nan"), 1.0), (float("inf"), float("inf"))])
def test_a_network_whose_features_are_no_numbers_is_refused(found: tuple[float, ...]) -> None:
    with pytest.raises(Unmeasured, match="scorer sets fails on every picture: features gives NaN or infinite features"):
        try_scorers([OfSets(Features(found))], [ROW], 4)


def build_table(rows: Sequence[Row], judges: Sequence[Judge], answers: dict[str, list[tuple[str, ...]]]) -> ScoreTable:
    """The same answers before and after; a picture without an answer has a reason, but for the first."""
    found = {
        name: [Score(1.0 if a else None, a, f"{name} lost {i}" if i else "") for i, a in enumerate(each)]
        for name, each in answers.items()
    }
    return ScoreTable(rows, judges, {"base": found, "edited": found})


def build_number(base: int, edited: int, title: str = "") -> Measure:
    ends = [Estimate(value=0.5 if n else None, low=0, high=1, n=n, unscored=9 - n) for n in (base, edited)]
    return Measure(metric="m", title=title, group="g", judge="all", base=ends[0], edited=ends[1], drop=None)


def test_a_question_of_which_no_picture_was_judged_is_an_error_whatever_else_was_measured() -> None:
    judges = [Planted(name="one"), Planted(question="style", name="two")]
    rows, seen = [ROW, ROW, STYLED, STYLED], [("cat",)] * 4
    lost = build_table(rows, judges, {"one": seen, "two": [()] * 4})
    says = r"no judge of 'style' \(two\) could judge any of 4 pictures, so there is no report: two lost 2"
    with pytest.raises(Unmeasured, match=says):
        require_measured(lost, [build_number(4, 4)])
    require_measured(build_table(rows, judges, {"one": [("cat",), (), (), ()], "two": seen}), [build_number(1, 1)])
    require_measured(build_table(rows, judges[:1], {"one": seen}), [build_number(4, 4)])
    alone = build_table([ROW], judges[:1], {"one": [()]})
    with pytest.raises(Unmeasured, match="could judge any of 2 pictures, so there is no report: the judges gave no"):
        require_measured(alone, [build_number(4, 4)])


def test_a_question_without_labels_needs_no_verdicts() -> None:
    scorer = Planted(question="match", name="fit")
    require_measured(build_table([MATCH], [scorer], {"fit": [()]}), [build_number(1, 1)])


def test_one_number_of_either_model_is_enough_to_have_measured_something() -> None:
    empty = build_table([MATCH], [], {})
    for enough in ((0, 1), (1, 0)):
        require_measured(empty, [build_number(0, 0), build_number(*enough)])
    with pytest.raises(Unmeasured, match="no number for any picture, so there is no report; ask others with --scorer"):
        require_measured(empty, [build_number(0, 0, "a title")])
    with pytest.raises(Unmeasured, match="so there is no report: kid failed: no memory"):
        require_measured(empty, [build_number(0, 0, "a title"), build_number(0, 0, "kid failed: no memory")])
