"""Attacks in one folder add up: measures, successes and rows of a record of two runs, on records made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from efface.attacks import BASELINE
from efface.records import attack_files
from efface.records.attacks import (
    AttackedRows,
    AttackMeasure,
    AttackRecord,
    AttackSuccess,
    Condition,
    PlannedAttack,
)
from efface.records.report import Alarm
from efface.robustness.merging import UNEVEN, Log, merge
from report_fixtures import build_share, write_attacks

ROWS = ("cat/0", "cat/1", "cat/2", "cat/3")


def build_measure(
    attack: str = "seeds", condition: Condition = "target", broke: int = 1, rows: int = 4, **more: Any
) -> AttackMeasure:
    """An attack that broke some of its rows; two that have the same inputs are the same attack."""
    fields = {"version": "1", "threat": "prompts", "settings": {"queries": 1}, "inputs": ("x",), **more}
    none = build_share(0, rows)
    return AttackMeasure(
        **fields,
        attack=attack,
        condition=condition,
        worst_case=False,
        before=none,
        after=build_share(broke, rows),
        baseline=none,
        lift=None,
        curve=(),
        queries=1.0,
        drawn=rows,
        unscored=0,
        seconds=1.0,
    )


def build_success(attack: str, row: str = ROWS[0], condition: Condition = "target", text: str = "") -> AttackSuccess:
    return AttackSuccess(
        row=row, broken=True, queries=1, text=text, attack=attack, condition=condition, prompt="a cat", before=""
    )


@pytest.fixture
def whole(tmp_path: Path) -> AttackRecord:
    changes = {"measures": (), "successes": (), "alarms": (), "planned": (), "worst": {}}
    return write_attacks(tmp_path).model_copy(update=changes)


def run(whole: AttackRecord, *measures: AttackMeasure, **changes: Any) -> AttackRecord:
    worst = changes.pop("worst", dict.fromkeys(ROWS, False))
    return whole.model_copy(update={"measures": measures, "worst": worst, **changes})


def list_names(record: AttackRecord) -> list[tuple[str, Condition, int]]:
    return [(m.attack, m.condition, m.size) for m in record.measures]


@pytest.mark.parametrize(("before", "after", "kept"), [(4, 4, 2), (3, 4, 2), (4, 3, 1)])
def test_a_repeated_attack_takes_the_place_of_the_earlier_one_unless_it_has_fewer_rows(
    whole: AttackRecord, before: int, after: int, kept: int
) -> None:
    first = run(whole, build_measure(broke=1, rows=before), successes=(build_success("seeds", text="first"),))
    second = run(whole, build_measure(broke=2, rows=after), successes=(build_success("seeds", text="second"),))
    found = merge(first, second)
    assert [m.after.value for m in found.measures] == [kept / (after if kept == 2 else before)]
    assert [s.text for s in found.successes] == ["first" if kept == 1 else "second"]


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"settings": {"queries": 2}}, "seeds (queries 2)"),
        ({"settings": {"queries": 2, "width": 3}}, "seeds (queries 2, width 3)"),
        ({"version": "0"}, "seeds (version 0)"),
        ({"seed": 7}, "seeds (seed 7)"),
        ({"rows": 3}, "seeds (3 rows)"),
    ],
)
def test_of_an_attack_with_other_inputs_both_measures_stay_and_the_earlier_says_how_it_differs(
    whole: AttackRecord, other: dict[str, Any], name: str
) -> None:
    earlier, now = build_measure(inputs=("y",), **other), build_measure(broke=2)
    found = merge(
        run(whole, earlier, successes=(build_success("seeds", text="first"),)),
        run(whole, now, successes=(build_success("seeds", text="second"),)),
    )
    assert list_names(found) == [("seeds", "target", 4), (name, "target", other.get("rows", 4))]
    assert [(s.attack, s.text) for s in found.successes] == [("seeds", "second"), (name, "first")]


def test_of_several_attacks_each_is_compared_with_its_own_repetition(whole: AttackRecord) -> None:
    earlier = run(
        whole,
        build_measure(broke=1),
        build_measure("prune", inputs=("p",), rows=3),
        build_measure("merge", inputs=("m",), rows=9),
        successes=(build_success("seeds", text="first"), build_success("prune"), build_success("elsewhere")),
    )
    now = run(
        whole,
        build_measure("merge", inputs=("m",)),
        build_measure(broke=3),
        successes=(build_success("seeds", text="second"),),
    )
    found = merge(earlier, now)
    assert list_names(found) == [("seeds", "target", 4), ("prune", "target", 3), ("merge", "target", 9)]
    assert [m.after.value for m in found.measures] == [3 / 4, 1 / 3, 1 / 9]
    assert [(s.attack, s.text) for s in found.successes] == [("seeds", "second"), ("prune", "")]


def test_a_name_that_is_taken_is_called_again(whole: AttackRecord) -> None:
    one, two = (
        build_measure(inputs=("y",), settings={"queries": 2}),
        build_measure(attack="seeds (queries 2)", inputs=("z",)),
    )
    found = merge(run(whole, one, two), run(whole, build_measure()))
    assert [name for name, *_ in list_names(found)] == ["seeds", "seeds (queries 2) again", "seeds (queries 2)"]


def test_an_attack_on_another_condition_is_another_measure(whole: AttackRecord) -> None:
    now = run(
        whole,
        build_measure(condition="control-base"),
        successes=(build_success("seeds", condition="control-base", text="b"),),
    )
    found = merge(run(whole, build_measure(), successes=(build_success("seeds", text="t"),)), now)
    assert list_names(found) == [("seeds", "control-base", 4), ("seeds (4 rows)", "target", 4)]
    assert [(s.condition, s.text) for s in found.successes] == [("control-base", "b"), ("target", "t")]


def test_files_of_version_1_have_no_inputs_and_are_compared_by_their_facts(whole: AttackRecord) -> None:
    old, again = build_measure(inputs=()), build_measure(broke=2)
    assert list_names(merge(run(whole, old), run(whole, again))) == [("seeds", "target", 4)]
    for other in (
        build_measure(broke=2, seed=1),
        build_measure(broke=2, version="2"),
        build_measure(broke=2, settings={"queries": 5}),
    ):
        assert len(merge(run(whole, old), run(whole, other)).measures) == 2


def test_a_row_is_as_the_worst_of_both_runs_left_it(whole: AttackRecord) -> None:
    verdicts = [(one, two) for one in (True, None, False) for two in (True, None, False)]
    earlier = {f"cat/{i}": one for i, (one, _) in enumerate(verdicts)}
    now = {f"cat/{i}": two for i, (_, two) in enumerate(verdicts)}
    found = merge(run(whole, worst=earlier), run(whole, worst=now))
    assert list(found.worst.values()) == [True, True, True, True, None, None, True, None, False]
    assert (found.robust.value, found.robust.n, found.robust.unscored) == (1 / 6, 6, 3)


@pytest.mark.parametrize("wider", ["earlier", "now"])
def test_a_run_on_some_of_the_rows_adds_to_one_on_all(whole: AttackRecord, wider: str) -> None:
    few, all_ = {"cat/1": True}, {"cat/0": False, "cat/1": False, "cat/2": None}
    earlier, now = (all_, few) if wider == "earlier" else (few, all_)
    found = merge(run(whole, worst=earlier), run(whole, worst=now))
    assert found.worst == {"cat/0": False, "cat/1": True, "cat/2": None}


def test_runs_on_other_rows_are_refused(whole: AttackRecord) -> None:
    with pytest.raises(ValueError, match="attacks on other rows of the suite; give another folder"):
        merge(run(whole, worst={"cat/0": False, "cat/1": True}), run(whole, worst={"cat/0": False, "dog/0": True}))


def test_of_a_file_that_does_not_list_rows_the_successes_on_the_target_are_known(whole: AttackRecord) -> None:
    found = (build_success("seeds"), build_success("seeds", ROWS[1], "control-base"))
    merged = merge(run(whole, build_measure(), worst={}, successes=found), run(whole, build_measure(broke=0)))
    assert merged.worst == {"cat/0": True, "cat/1": False, "cat/2": False, "cat/3": False}
    assert not merged.successes, "the attack was made again"


def test_a_condition_is_described_by_the_run_with_more_rows(whole: AttackRecord) -> None:
    (target,) = whole.conditions
    base = target.model_copy(update={"condition": "control-base"})
    fewer, more = (target.model_copy(update={"rows": rows}) for rows in (3, 30))
    for earlier, now in (((more, base), (fewer,)), ((fewer, base), (more,))):
        found = merge(run(whole, conditions=earlier), run(whole, conditions=now)).conditions
        assert [(c.condition, c.rows) for c in found] == [("target", 30), ("control-base", 20)]


def test_plans_and_alarms_are_those_of_both_runs_without_repeats(whole: AttackRecord) -> None:
    def plan(inputs: str, rows: int = 4) -> PlannedAttack:
        return PlannedAttack(attack="seeds", condition="target", version="1", settings={}, inputs=(inputs,), rows=rows)

    def alarm(name: str) -> Alarm:
        return Alarm(name=name, raised_when="then", means="It means.", do="Do.")

    earlier = run(whole, planned=(plan("x"), plan("y")), alarms=(alarm("a"), alarm("b")))
    now = run(whole, planned=(plan("y", 9), plan("z")), alarms=(alarm("c"), alarm("a")))
    found = merge(earlier, now)
    assert [(p.inputs, p.rows) for p in found.planned] == [(("x",), 4), (("y",), 9), (("z",), 4)]
    assert [a.name for a in found.alarms] == ["c", "a", "b"]


def build_attacked(rows: tuple[str, ...], attack: str = "seeds", **more: Any) -> AttackedRows:
    return AttackedRows(
        **{"attack": attack, "version": "1", "settings": {"queries": 1}, "seed": 0, "rows": rows, **more}
    )


def test_a_row_that_an_attack_did_not_attack_is_known_only_if_something_broke_it(whole: AttackRecord) -> None:
    """An attack that breaks all of its few rows does not disappear among many rows of a weaker one."""
    strong = run(
        whole, build_measure("prune", rows=2, broke=2), worst=dict.fromkeys(ROWS[:2], True),
        attacked=(build_attacked(ROWS[:2], "prune"),),
    )  # fmt: skip
    weak = run(
        whole, build_measure(inputs=("y",)), worst=dict(zip(ROWS, (False, False, True, False), strict=True)),
        attacked=(build_attacked(ROWS),),
    )  # fmt: skip
    for found in (merge(strong, weak), merge(weak, strong)):
        assert (found.robust.value, found.robust.n, found.robust.unscored) == (0, 3, 1)
        (alarm,) = found.alarms
        assert alarm.name == UNEVEN and alarm.raised_when == "of 4 rows in this folder: prune on 2"
    again = run(whole, worst=dict.fromkeys(ROWS, False), attacked=(build_attacked(ROWS, "prune"),))
    whole_again = merge(merge(strong, weak), again)
    assert (whole_again.robust.value, whole_again.robust.n, whole_again.alarms) == (1 / 4, 4, ())


@pytest.mark.parametrize("other", [{"settings": {"queries": 9}}, {"seed": 3}, {"version": "2"}, {"attack": "merge"}])
def test_an_attack_with_other_settings_is_another_that_all_rows_need(
    whole: AttackRecord, other: dict[str, Any]
) -> None:
    first = run(whole, worst=dict.fromkeys(ROWS, False), attacked=(build_attacked(ROWS),))
    few = run(whole, worst=dict.fromkeys(ROWS[:1], False), attacked=(build_attacked(ROWS[:1], **other),))
    found = merge(first, few)
    assert len(found.attacked) == 2 and (found.robust.n, found.robust.unscored) == (1, 3)
    same = merge(first, run(whole, worst=dict.fromkeys(ROWS[:1], False), attacked=(build_attacked(ROWS[:1]),)))
    assert same.attacked == first.attacked and same.robust.n == 4


def test_attacks_of_a_file_that_does_not_list_their_rows_were_made_on_all_of_it(whole: AttackRecord) -> None:
    older = run(
        whole, build_measure(), build_measure("prune", missing="no", status="refused"), build_measure(BASELINE),
        build_measure("merge", condition="control-base"), worst=dict.fromkeys(ROWS[:2], False),
    )  # fmt: skip
    found = merge(older, run(whole, worst=dict.fromkeys(ROWS, False), attacked=(build_attacked(ROWS, "relearn"),)))
    assert [(each.attack, each.rows) for each in found.attacked] == [("seeds", ROWS[:2]), ("relearn", ROWS)]
    assert (found.robust.n, found.robust.unscored) == (2, 2)


def write_log(folder: Path, record: AttackRecord) -> Log:
    return Log(folder, folder / "attacks", None, (), lambda: record)


def test_two_runs_at_once_in_one_folder_lose_nothing(whole: AttackRecord, tmp_path: Path) -> None:
    out = tmp_path / "both"
    one, other = (
        write_log(out, run(whole, build_measure(name, inputs=(name,)), worst=dict.fromkeys(ROWS, broken)))
        for name, broken in (("seeds", True), ("prune", False))
    )
    one.write()
    other.write()
    for log in (one, one, other):
        found = log.write()
        assert {name for name, *_ in list_names(found)} == {"seeds", "prune"} and found.robust.value == 0
    assert attack_files.read_attacks(out) == found


def test_a_run_that_another_one_with_another_edit_overtook_is_refused(whole: AttackRecord, tmp_path: Path) -> None:
    drawing = whole.drawing.model_copy(update={"edit": "0" * 64})
    write_log(tmp_path / "both", run(whole, drawing=drawing)).write()
    with pytest.raises(ValueError, match="this folder holds attacks with another drawing"):
        write_log(tmp_path / "both", run(whole)).write()
