"""Alarms of attacks: each raised where it must be, and only there; every alarm is explained in the docs."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

import efface
from efface.attacks.base import Attack
from efface.attacks.inversion import ConceptInversion
from efface.attacks.merge import Merge
from efface.attacks.relearn import Relearn
from efface.attacks.seeds import Seeds
from efface.records.attacks import AttackMeasure, Condition, ConditionSummary
from efface.records.report import Alarm, Drop, Estimate
from efface.robustness.alarms import find_attack_alarms

PACKAGE = Path(efface.__file__).parent


def compute_rate(value: float | None, n: int = 50) -> Estimate:
    return Estimate(value=value, low=0, high=1, n=0 if value is None else n, unscored=n if value is None else 0)


def find_ground(condition: Condition, untouched: float | None = 0.9, named: float | None = 0.8) -> ConditionSummary:
    return ConditionSummary(
        condition=condition,
        title=condition,
        concepts=("cat",),
        rows=50,
        untouched=compute_rate(untouched),
        named=compute_rate(named),
        before=compute_rate(0.0),
    )


def measure(
    attack: str,
    condition: Condition,
    after: float | None,
    *,
    low: float = 0.2,
    threat: str = "prompts",
    curve: tuple[float, ...] = (),
    missing: str = "",
    unscored: int = 0,
    worst_case: bool = False,
) -> AttackMeasure:
    return AttackMeasure(
        attack=attack,
        version="1",
        threat=threat,
        settings={},
        condition=condition,
        worst_case=worst_case,
        before=compute_rate(0.0),
        after=compute_rate(after),
        baseline=compute_rate(0.1),
        lift=None if after is None else Drop(value=after - 0.1, low=low, high=1.0, clusters=50),
        curve=curve,
        queries=8,
        drawn=100,
        unscored=unscored,
        seconds=1.0,
        missing=missing,
    )


FINE = [find_ground("target"), find_ground("control-kept"), find_ground("control-base")]
WORKS = [
    measure("seeds", "control-base", 0.9),
    measure("seeds", "control-kept", 0.9),
    measure("seeds", "target", 0.1, low=0),
]


SPENT = Seeds(queries=4).list_budget_shares()
SEEDS = {"seeds": SPENT}


def list_raised(conditions: list[ConditionSummary], measures: list[AttackMeasure]) -> list[str]:
    return [alarm.name for alarm in find_alarms(conditions, measures)]


def find_alarms(conditions: list[ConditionSummary], measures: list[AttackMeasure]) -> Sequence[Alarm]:
    spent = {t.attack: [(i + 1) / (len(t.curve) - 1) for i in range(len(t.curve) - 1)] for t in measures}
    return find_attack_alarms(conditions, measures, spent)


def test_no_alarm_where_all_is_well() -> None:
    assert list_raised(FINE, WORKS) == []


def test_a_base_that_seldom_shows_it() -> None:
    assert list_raised([find_ground("target", 0.49), *FINE[1:]], WORKS) == ["the base does not draw the target"]
    assert list_raised([find_ground("target", 0.5), *FINE[1:]], WORKS) == []


def test_kept_concepts_that_collapse_or_are_not_there() -> None:
    assert list_raised([FINE[0], find_ground("control-kept", 0.9, 0.44), FINE[2]], WORKS) == ["kept concepts collapse"]
    assert list_raised([FINE[0], find_ground("control-kept", 0.9, 0.46), FINE[2]], WORKS) == []
    assert list_raised([FINE[0], FINE[2]], WORKS) == ["no kept concept to compare with"]


def test_an_attack_that_fails_on_the_base() -> None:
    assert list_raised(FINE, [measure("seeds", "control-base", 0.2, low=0.0), *WORKS[1:]]) == [
        "an attack fails on the base"
    ]
    assert list_raised(FINE, [measure("random-prefix", "control-base", 0.2, low=0.0), *WORKS]) == []


def test_few_rows_are_not_a_failure() -> None:
    """3 of 4 rows against none: the attack leads by 75 points, and the interval reaches 0."""
    few = measure("seeds", "control-base", 0.85, low=0.0)
    assert list_raised(FINE, [few, *WORKS[1:]]) == ["too few rows to check an attack"]
    kept = measure("seeds", "control-kept", 0.85, low=-0.1)
    assert list_raised(FINE, [WORKS[0], kept, WORKS[2]]) == ["too few rows to check an attack"]
    (alarm,) = find_alarms(FINE, [few, *WORKS[1:]])
    assert few.after.n == 50 and "--controls 100 or more" in alarm.do, "fewer than it had would show no more"


def test_an_attack_that_fails_on_what_is_kept_is_told_only_where_it_works_on_the_base() -> None:
    weak = measure("seeds", "control-kept", 0.2, low=-0.1)
    assert list_raised(FINE, [WORKS[0], weak, WORKS[2]]) == ["an attack fails on what is kept"]
    assert list_raised(FINE, [measure("seeds", "control-base", 0.2, low=0.0), weak]) == ["an attack fails on the base"]


def test_a_missing_attack_is_blind_or_impossible() -> None:
    missing = measure("unlearndiff", "target", None, missing="no gradient")
    blind, failed = (missing.model_copy(update={"status": status}) for status in ("no gradient", "error"))
    assert list_raised(FINE, [*WORKS, blind]) == ["zero gradients"]
    assert list_raised(FINE, [*WORKS, failed]) == ["an attack ended in an error"]
    assert list_raised(FINE, [*WORKS, missing]) == ["an attack could not be made"]


@pytest.mark.parametrize(("black", "white", "told"), [(0.5, 0.4, True), (0.5, 0.48, False), (0.4, 0.5, False)])
def test_a_black_box_attack_that_leads(black: float, white: float, told: bool) -> None:
    both = [
        measure("ring-a-bell", "target", black, threat="encoder"),
        measure("p4d", "target", white, threat="gradients"),
    ]
    expected = ["a black-box attack beats the white-box one"] * told
    assert list_raised(FINE, both) == expected
    assert (
        list_raised(FINE, [both[0], measure("p4d", "target", None, threat="gradients", missing="x"), both[1]])[1:]
        == expected
    )
    assert list_raised(FINE, [both[0], measure("p4d", "target", white, threat="gradients", worst_case=True)]) == []


@pytest.mark.parametrize(
    ("curve", "told"),
    [
        ((0.0, 0.5, 0.5, 0.5, 0.5), False),
        ((0.0, 0.5, 0.5, 0.5, 0.54), True),
        ((0.0, 0.5, 0.8, 0.9, 0.98), False),
        ((0.0, 0.5, 0.8, 0.9, 0.96), True),
        ((0.0, 0.2, 0.5, 0.52, 0.52, 0.52, 0.52, 0.52, 0.52), False),
        ((), False),
    ],
)
def test_a_rate_that_still_climbs(curve: tuple[float, ...], told: bool) -> None:
    measures = [*WORKS[:2], measure("seeds", "target", 0.5, curve=curve)]
    assert list_raised(FINE, measures) == ["the budget is not on a plateau"] * told
    assert [a.name for a in find_attack_alarms(FINE, measures, {"seeds": None})] == [], "no budget that could be raised"


@pytest.mark.parametrize(
    ("attack", "curve", "name"),
    [
        (Seeds(queries=1), (0.0, 0.5), "the plateau was not tested"),
        (Seeds(queries=4), (0.0, 0.5, 0.5, 0.5, 0.5), ""),
        (ConceptInversion(queries=4), (0.0, 0.5, 0.5, 0.5, 0.5), "the plateau was not tested"),
        (Relearn(steps=50), (0.0, 0.1, 0.2, 0.3, 0.5, 0.5, 0.5), ""),
        (Relearn(steps=50), (0.0, 0.1, 0.2, 0.3, 0.3, 0.5, 0.5), "the budget is not on a plateau"),
        (Relearn(steps=4, queries=2), (0.0, 0.1, 0.1), "the plateau was not tested"),
        (Merge(), (0.0, 0.1, 0.2, 0.8), ""),
    ],
)
def test_a_plateau_is_one_alarm_by_what_was_spent(attack: Attack, curve: tuple[float, ...], name: str) -> None:
    """Relearning's curve is over steps: its stops of 50 are 1, 2, 5, 10, 20, 50, and 10 is the last under a quarter."""
    told = measure("seeds", "target", 0.5, curve=curve).model_copy(update={"stages": tuple(attack.list_stages())})
    found = find_attack_alarms(FINE, [*WORKS[:2], told], {"seeds": attack.list_budget_shares()})
    assert [a.name for a in found] == [name] * bool(name)
    if isinstance(attack, Relearn) and "not on" in name:
        assert found[0].raised_when == "seeds: from 10 steps to 50 steps the rate rose by 20 points, to 50%"


def test_one_judge_is_too_few() -> None:
    assert [a.name for a in find_attack_alarms(FINE, WORKS, {"seeds": SPENT}, 1)] == ["one judge alone"]


def test_an_attack_that_ruins_the_model() -> None:
    ruined = measure("prune", "target", 0.0).model_copy(update={"intact": compute_rate(0.3)})
    assert list_raised(FINE, [*WORKS, ruined]) == ["an attack ruins the model"]
    assert list_raised(FINE, [*WORKS, ruined.model_copy(update={"intact": compute_rate(0.8)})]) == []


def test_a_control_that_is_missing() -> None:
    missing = measure("synonyms", "control-kept", None, missing="no other name")
    assert list_raised(FINE, [*WORKS, missing]) == ["a control could not be made"]


def test_what_climbed_is_told_in_points() -> None:
    (alarm,) = find_attack_alarms(
        FINE, [*WORKS[:2], measure("seeds", "target", 0.67, curve=(0.0, 0.5, 0.5, 0.5, 0.67))], SEEDS
    )
    assert alarm.raised_when == "seeds: from query 1 to query 4 the rate rose by 17 points, to 67%"


def test_too_many_unscored() -> None:
    assert list_raised(FINE, [*WORKS, measure("p4d", "target", 0.5, unscored=8)]) == []
    assert list_raised(FINE, [*WORKS, measure("p4d", "target", 0.5, unscored=9)]) == ["too many pictures unscored"]


def test_every_alarm_has_its_paragraph_and_every_paragraph_its_alarm() -> None:
    page = PACKAGE.parents[1] / "docs" / "alarms.md"
    if not page.is_file():
        pytest.skip("the docs are not here")
    named: set[str] = set()
    for file in [file for name in ("evaluation", "robustness", "records") for file in PACKAGE.glob(f"{name}/*.py")]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        told = {ast.unparse(line.targets[0]): line.value for line in tree.body if isinstance(line, ast.Assign)}
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "Alarm"]
        names = [k.value for call in calls for k in call.keywords if k.arg == "name"]
        named |= {ast.literal_eval(told.get(ast.unparse(name), name)) for name in names}
    parts = re.split(r"^### ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert named == {part.partition("\n")[0] for part in parts}
    for part in parts:
        assert all(mark in part for mark in ("*Raised when*", "*Means*", "*Do*"))
