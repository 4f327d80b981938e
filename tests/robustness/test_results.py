"""From the results of single rows to a record of attacks: rates, baselines, curves and the worst case, by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from attack_context import build_rows
from efface.attacks import build_attack
from efface.edits.edit import Edit
from efface.evaluation.judging import estimate_gain
from efface.records.attack_files import read_file
from efface.records.attacks import AttackMeasure, AttackRecord, Condition, RowResult
from efface.records.report import Estimate
from efface.robustness.batch import JudgePanel
from efface.robustness.conditions import AttackTarget, Campaign, ConceptAliases
from efface.robustness.merging import Log
from efface.robustness.results import CampaignResults, build_record, describe_suite
from efface.robustness.run import AttackResult
from efface.suites.spec import GroupSpec, Suite, SuiteSpec
from judging_fixtures import Planted
from report_fixtures import build_share, record

ROWS = tuple(build_rows("one cat", "two cats", "a cat", "cats", "my cat", "his cat"))
GROUPS = (
    GroupSpec("target", "labels", "erase", "object", 6, "cats"),
    GroupSpec("x", "labels", "keep", "object", 1, "x"),
)
SUITE = Suite(SuiteSpec("own", "2", "CC0", "here", "", "labels", GROUPS), ("cat",), ROWS)
SHOWN = (True, False, False, False, False, False)
"""What is shown before any attack: the first row."""
CHANCE = ((None, 0), (True, 1), (False, 2), (False, 2), (None, 2), (False, 2))
"""What random prefixes broke, and in how many queries; the first row is not attacked."""
SEEDS = ((None, 0), (False, 3), (True, 2), (True, 3), (None, 3), (False, 3))
Told = tuple[tuple[bool | None, int], ...]


def build_shown(*broken: bool | None) -> dict[str, RowResult]:
    found = zip(ROWS, broken, strict=True)
    return {row.id: RowResult(row=row.id, broken=b, queries=1, picture=f"{row.id}.png") for row, b in found}


def build_result(told: Told, **more: Any) -> AttackResult:
    """The results of the rows that were attacked; those of 0 queries were not."""
    found = {
        row.id: RowResult(row=row.id, broken=broken, queries=queries, unscored=broken is None, seed=queries)
        for row, (broken, queries) in zip(ROWS, told, strict=True)
        if queries
    }
    return AttackResult(found, **more)


def build_target(condition: Condition = "target", concept: str = "cat") -> AttackTarget:
    return AttackTarget(condition, concept, ROWS, ROWS, "", ConceptAliases())


def build_results(by_attack: Mapping[tuple[str, Condition], AttackResult], **more: Any) -> CampaignResults:
    named = {"random-prefix": 2, "seeds": 3, "soft-prompt": 3}
    conditions = tuple(dict.fromkeys(condition for _, condition in by_attack))
    every = {condition: build_shown(*SHOWN) for condition in conditions}
    fields: dict[str, Any] = {
        "order": {n: dataclasses.replace(build_attack(n, "tiny"), queries=q) for n, q in named.items()},
        "conditions": [build_target(condition) for condition in conditions],
        "untouched": {condition: build_shown(*[True] * 5, None) for condition in conditions},
        "named": {condition: build_shown(*[False] * 5, None) for condition in conditions},
        "before": every,
        "by_attack": dict(by_attack),
    }
    return CampaignResults(**{**fields, **more})


def build(found: CampaignResults) -> AttackRecord:
    panel, drawing = JudgePanel((Planted(),)), record().drawing
    return build_record(found, SUITE, Edit({}, {"method": "ESD"}), drawing, panel, Campaign(seed=5))


def find(made: AttackRecord, attack: str, condition: Condition = "target") -> AttackMeasure:
    measure = made.find(attack, condition)
    assert measure is not None
    return measure


BOTH: dict[tuple[str, Condition], AttackResult] = {
    ("random-prefix", "target"): build_result(CHANCE),
    ("seeds", "target"): build_result(SEEDS, seconds=1.5, inputs=["digest"]),
}


def test_a_rate_counts_what_was_shown_before_and_what_was_broken() -> None:
    made = build(build_results(BOTH, searched="of the first encoder"))
    seeds = find(made, "seeds")
    assert (seeds.before, seeds.after, seeds.baseline) == (
        build_share(1, 6),
        build_share(3, 5, unscored=1),
        build_share(2, 5, unscored=1),
    )
    after, chance = [True, False, True, True, None, False], [True, True, False, False, None, False]
    assert seeds.lift == estimate_gain(after, chance, [row.prompt for row in ROWS])
    assert (seeds.drawn, seeds.queries, seeds.unscored, seeds.seconds) == (14, 14 / 5, 1, 1.5)
    assert (seeds.seed, seeds.inputs, seeds.settings["queries"], seeds.searched) == (5, ("digest",), 3, "")
    assert seeds.stages == () and seeds.intact is None and not seeds.worst_case
    assert find(made, "random-prefix").lift is None and [m.attack for m in made.measures] == ["random-prefix", "seeds"]
    (summary,) = made.conditions
    assert (summary.condition, summary.concepts, summary.rows) == ("target", ("cat",), 6)
    assert (summary.untouched, summary.named) == (build_share(5, 5, unscored=1), build_share(0, 5, unscored=1))
    assert summary.before == build_share(1, 6)


def test_the_curve_is_the_rate_after_each_number_of_queries() -> None:
    """The row that could not be judged is open from the beginning, since no number of queries decides it."""
    made = build(build_results(BOTH))
    assert find(made, "seeds").curve == (1 / 5, 1 / 5, 2 / 5, 3 / 5)
    assert find(made, "random-prefix").curve == (1 / 5, 2 / 5, 2 / 5)
    assert build_results(BOTH).find_broken("seeds", "target", 2) == dict(
        zip((row.id for row in ROWS), (True, False, True, False, None, False), strict=True)
    )


def test_a_row_is_open_where_a_picture_before_the_attack_or_within_the_queries_could_not_be_judged() -> None:
    """The second row was not judged before; of the third, one of the pictures was not before the one that broke it."""
    before = {"target": build_shown(True, None, False, False, False, False)}
    told = build_result(((None, 0), (False, 3), (True, 3), (True, 3), (False, 3), (False, 3)))
    told.row_results[ROWS[2].id] = told.row_results[ROWS[2].id].model_copy(update={"unscored": 1})
    found = build_results({**BOTH, ("seeds", "target"): told}, before=before)
    assert list(found.find_broken("seeds", "target").values()) == [True, None, True, True, False, False]
    assert list(found.find_broken("seeds", "target", 2).values()) == [True, None, None, False, False, False]
    assert find(build(found), "seeds").curve == (1 / 4, 1 / 4, 1 / 4, 3 / 5)


def test_a_curve_whose_beginning_is_not_known_is_empty_and_not_shorter() -> None:
    before = {"target": build_shown(*[None] * 6)}
    broken = build_result(((True, 2),) * 6)
    found = build_results({key: broken for key in BOTH}, before=before)
    assert find(build(found), "seeds").curve == ()


def test_an_attack_on_several_concepts_has_no_value_if_one_part_has_none() -> None:
    whole = AttackResult()
    for part in (build_result(CHANCE), AttackResult(missing="no gradient", status="no gradient"), AttackResult()):
        whole.add(part)
    assert (whole.missing, whole.status) == ("no gradient", "no gradient")


def test_a_baseline_has_as_many_queries_as_the_attack_and_pictures_of_another_thing() -> None:
    one = {
        ("random-prefix", "target"): build_result(((None, 0), (True, 3), *CHANCE[2:])),
        **dict(list(BOTH.items())[1:]),
    }
    found = build_results(one)
    found.order["seeds"].__dict__["queries"] = 2
    assert found.find_baseline("seeds", "target")[ROWS[1].id] is False
    other = build_result(((None, 0), (None, 1), (True, 1), (False, 0), (True, 1), (None, 1)))
    told = build_results(BOTH, distractors={("seeds", "target"): other}).find_baseline("seeds", "target")
    assert list(told.values()) == [True, True, True, False, True, None]


def test_an_attack_without_a_value_has_no_rate_but_what_it_broke_counts_in_the_worst_case() -> None:
    none = build_result(((None, 0), (None, 0), (True, 1), (None, 0), (None, 0), (None, 0)), missing="no gradient")
    made = build(
        build_results(
            {("random-prefix", "target"): build_result(((None, 0), *[(False, 2)] * 5)), ("seeds", "target"): none}
        )
    )
    assert list(made.worst.values()) == [True, False, True, False, False, False] and made.robust == build_share(4, 6)
    assert find(made, "seeds").after == build_share(2, 2, unscored=4) and find(made, "seeds").missing == "no gradient"
    lost = build_results(
        {("seeds", "target"): build_result(((None, 0),) * 6, missing="no")}, before={"target": build_shown(*[None] * 6)}
    )
    lost.by_attack["random-prefix", "target"] = build_result(((None, 2),) * 6)
    assert find(build(lost), "seeds").curve == () and find(build(lost), "seeds").queries == 0


def test_a_row_is_open_where_nothing_broke_it_and_something_could_not_be_judged() -> None:
    made = build(build_results(BOTH))
    assert list(made.worst.values()) == [True, True, True, True, None, False]
    assert made.robust == build_share(1, 5, unscored=1)
    part = {
        ("random-prefix", "target"): build_result(CHANCE),
        ("seeds", "target"): build_result((*SEEDS[:5], (None, 0))),
    }
    assert list(build(build_results(part)).worst.values())[5] is False, (
        "a row that one attack did not attack is known by others"
    )


@pytest.mark.parametrize(("worst_case", "condition"), [(True, "target"), (True, "control-base"), (False, "target")])
def test_in_the_worst_case_rows_that_were_shown_before_are_left_out(worst_case: bool, condition: Condition) -> None:
    by_attack = {(name, condition): each for (name, _), each in BOTH.items()}
    found = build_results(by_attack, worst_case=worst_case)
    seeds = find(build(found), "seeds", condition) if condition == "target" else None
    made = build(dataclasses.replace(found, by_attack={**BOTH, **by_attack}, **_with_target(found)))
    for name in ("seeds", "random-prefix"):
        measure = find(made, name, condition)
        left_out = worst_case and condition == "target" and name == "seeds"
        assert measure.worst_case == left_out and measure.size == (5 if left_out else 6)
    assert seeds is None or seeds.before == (build_share(0, 5) if worst_case else build_share(1, 6))


def _with_target(found: CampaignResults) -> dict[str, Any]:
    """The parts of results that have both the target and the condition of `found`."""
    (condition,) = {each.condition for each in found.conditions}
    both: tuple[Condition, ...] = ("target", condition) if condition != "target" else ("target",)
    same = {name: dict.fromkeys(both, getattr(found, name)[condition]) for name in ("untouched", "named", "before")}
    return {"conditions": [build_target(each) for each in both], **same}


def test_conditions_are_kept_apart() -> None:
    every: dict[tuple[str, Condition], AttackResult] = {**BOTH}
    every["random-prefix", "control-kept"] = build_result(((None, 0), *[(False, 2)] * 5))
    found = build_results(every, intact={"seeds": build_shown(True, True, True, False, None, True)})
    found.conditions = [build_target(), dataclasses.replace(build_target("control-kept", "dog"), rows=ROWS[:4])]
    made = build(found)
    assert made.targets == ("cat",) and [(c.condition, c.concepts, c.rows) for c in made.conditions] == [
        ("target", ("cat",), 6),
        ("control-kept", ("dog",), 4),
    ]
    assert find(made, "random-prefix", "control-kept").after == build_share(1, 4)
    assert made.find("seeds", "control-kept") is None and find(made, "seeds").intact == build_share(4, 5, unscored=1)
    assert find(made, "random-prefix").intact is None


def test_each_attack_that_has_a_value_names_the_rows_of_the_target_that_it_was_made_on() -> None:
    """Random prefixes are made with every attack; one without a value tells nothing of any row."""
    rows = tuple(f"row/{i}" for i in range(6))
    (seeds,) = build(build_results(BOTH)).attacked
    assert (seeds.attack, seeds.rows, seeds.seed) == ("seeds", rows, 5)
    refused = {**BOTH, ("seeds", "target"): AttackResult(missing="it can't", status="refused")}
    assert build(build_results(refused)).attacked == ()


def test_successes_have_their_prompt_and_the_picture_before() -> None:
    made = build(build_results(BOTH))
    assert [(s.attack, s.row, s.prompt, s.before, s.seed) for s in made.successes] == [
        ("random-prefix", "row/1", "two cats", "row/1.png", 1),
        ("seeds", "row/2", "a cat", "row/2.png", 2),
        ("seeds", "row/3", "cats", "row/3.png", 3),
    ]


def test_the_tokens_that_are_searched_are_named_for_attacks_that_search_some() -> None:
    by_attack: dict[tuple[str, Condition], AttackResult] = {**BOTH, ("soft-prompt", "target"): build_result(SEEDS)}
    made = build(build_results(by_attack, searched="those of the first encoder"))
    assert find(made, "soft-prompt").searched == "those of the first encoder" and find(made, "seeds").searched == ""


def test_groups_of_a_suite_without_rows_are_not_in_its_description() -> None:
    told = describe_suite(SUITE)
    assert (told.name, told.version, told.groups) == ("own", "2", {"target": "cats"})


def test_a_record_is_written_with_paths_relative_to_it_and_added_to(tmp_path: Path) -> None:
    (tmp_path / "store" / "attacks").mkdir(parents=True)
    made = build(build_results(BOTH))
    first = Log(tmp_path, tmp_path / "store" / "attacks", None, (), lambda: made).write()
    assert first.store == "store/attacks" and [s.before for s in first.successes] == [
        f"store/row/{i}.png" for i in (1, 2, 3)
    ]
    assert {(s.picture, s.tensors) for s in first.successes} == {("", "")}
    assert read_file(tmp_path) == first
    only = {("random-prefix", "target"): build_result(((None, 0), *[(False, 2)] * 5))}
    again = Log(tmp_path, tmp_path / "store" / "attacks", first, (), lambda: build(build_results(only))).write()
    assert {m.attack for m in again.measures} == {"random-prefix", "seeds"}
    assert again.robust == Estimate.model_validate(made.robust.model_dump())
