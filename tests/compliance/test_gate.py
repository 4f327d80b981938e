"""Which numbers of a report a rule is about, which ends they may have, and what is in the way of a rule that holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from efface.attacks import STANDARD
from efface.compliance import gate
from efface.compliance.doubts import doubt_attacks, list_attack_doubts, tell_left_out
from efface.compliance.rules import parse_rule
from efface.evaluation.alarms import LEFT_OUT, UNTESTED
from efface.records.attacks import InterruptedAttack, RowResult
from efface.records.report import Alarm, Estimate, Measure
from report_fixtures import build_share, measure, record, write_attacks


def choose(rule: str, *found: Measure) -> list[tuple[str, str, float | None]]:
    """The group, judge and threshold of each number that a rule is about."""
    numbers = gate.select_numbers(record(found), parse_rule(rule))
    return [(n.measure.group, n.measure.judge, n.measure.threshold) for n in numbers]


def test_a_policy_and_rules_of_ones_own_are_judged_together() -> None:
    own, policy = [parse_rule("esr1<0.9")], [parse_rule("psr1@unseen<0.8"), parse_rule("lpips>0.3")]
    found = gate.verify(record(), own, policy)
    assert [(f.rule, f.outcome) for f in found.findings] == [
        ("esr1<0.9", "holds"),
        ("psr1@unseen<0.8", "holds"),
        ("lpips>0.3", "unjudged"),
    ]
    absent = found.findings[-1]
    assert (absent.value, absent.n, absent.unscored, absent.short, absent.bar) == (None, 0, 0, 0, 0.3)
    assert (absent.low, absent.high, absent.judge) == (0, 0, "all")


def test_groups_that_were_left_out_leave_a_policys_rules_on_kept_things_open() -> None:
    """A rule that names its group, and one on the target, do not speak of what was left out."""
    alarms = tuple(Alarm(name=n, raised_when=f"{n} then", means="m", do="d") for n in ("other", LEFT_OUT))
    rules = [parse_rule(text) for text in ("psr1_drop>0.5", "psr1_drop@neighbour>0.5", "psr1_drop@all>0.5", "esr1<0.9")]
    found = gate.verify(record(alarms=alarms), [], rules).findings
    assert [(f.rule, f.group, f.outcome) for f in found] == [
        ("psr1_drop>0.5", "neighbour", "unjudged"),
        ("psr1_drop>0.5", "unseen", "unjudged"),
        ("psr1_drop@neighbour>0.5", "neighbour", "holds"),
        ("psr1_drop@all>0.5", "neighbour", "holds"),
        ("psr1_drop@all>0.5", "unseen", "holds"),
        ("esr1<0.9", "target", "holds"),
    ]
    assert found[0].says.endswith(f"undecided: {LEFT_OUT} then")
    assert {f.outcome for f in gate.verify(record(alarms=alarms[:1]), [], rules).findings} == {"holds"}
    assert {f.outcome for f in gate.verify(record(alarms=alarms), rules).findings} == {"holds"}, "rules of one's own"


@pytest.mark.parametrize(
    ("metric", "group", "doubted"),
    [
        ("robust", "attacks", "seeds"),
        ("asr", "seeds", "seeds"),
        ("asr_base", "seeds", "seeds"),
        ("asr", "synonyms", ""),
        ("esr1", "seeds", ""),
        ("psr1_drop", "target", ""),
    ],
)
def test_an_attack_without_an_end_is_in_the_way_of_numbers_of_it_alone(metric: str, group: str, doubted: str) -> None:
    found = doubt_attacks(metric, group, {"seeds": "was interrupted", "prune": "ended in an error"})
    assert found == (f"attack {doubted} was interrupted; run the same attacks again, which goes on" if doubted else "")


def test_an_interrupted_attack_on_the_target_is_a_number_without_a_value(tmp_path: Path) -> None:
    def stopped(attack: str, condition: str) -> InterruptedAttack:
        done = (RowResult(row="r", broken=True, queries=1),)
        return InterruptedAttack.model_validate(
            {"attack": attack, "condition": condition, "version": "1", "settings": {}, "rows": 9, "row_results": done}
        )

    which = [("seeds", "target"), ("seeds", "target"), ("prune", "control-base"), ("synonyms", "target")]
    attacks = write_attacks(tmp_path).model_copy(update={"interrupted": tuple(stopped(*each) for each in which)})
    found = gate.add_attack_measures(record(()), attacks).measures
    assert [(m.metric, m.group) for m in found] == [
        ("robust", "attacks"),
        ("asr", "synonyms"),
        ("asr", "relearn"),
        ("asr", "blind"),
        ("asr", "seeds"),
    ]
    for m in found[-2:]:
        assert (m.edited.value, m.edited.low, m.edited.high, m.edited.n, m.edited.unscored) == (None, 0, 1, 0, 0)
    assert (found[1].base.value, found[2].base.value) == (19 / 20, None), "relearn has no control on the base"
    assert found[0].base.value is None and {m.judge for m in found} == {"all"}
    base = attacks.find("synonyms", "control-base")
    assert base is not None
    blind = [m.model_copy(update={"missing": "it can't"}) if m == base else m for m in attacks.measures]
    (asr,) = gate.select_numbers(
        gate.add_attack_measures(record(()), attacks.model_copy(update={"measures": tuple(blind)})),
        parse_rule("asr_base@synonyms<0.5"),
    )
    assert asr.value is None


def test_a_threshold_picks_its_numbers_and_all_judges_together_go_before_each() -> None:
    sweep = [
        measure("ner", "target", build_share(1, 9), judge="one", threshold=0.3),
        measure("ner", "target", build_share(2, 9), threshold=0.3),
        measure("ner", "target", build_share(3, 9), judge="one", threshold=0.6),
        measure("ner", "target", build_share(4, 9), judge="two", threshold=0.6),
        measure("ner", "other", build_share(5, 9), threshold=0.6),
        measure("ner", "target", build_share(6, 9), judge="one"),
    ]
    assert choose("ner@target<1", *sweep) == [
        ("target", "all", 0.3),
        ("target", "one", 0.6),
        ("target", "two", 0.6),
        ("target", "one", None),
    ]
    assert choose("ner[0.6]@all<1", *sweep) == [("target", "one", 0.6), ("target", "two", 0.6), ("other", "all", 0.6)]
    headed = record(sweep).model_copy(update={"headlines": ("ner/target/0.3", "esr1/other")})
    assert [n.value for n in gate.select_numbers(headed, parse_rule("ner<1"))] == [2 / 9]
    assert [n.value for n in gate.select_numbers(headed, parse_rule("ner[0.6]<1"))] == [3 / 9, 4 / 9]


@pytest.mark.parametrize("text", ["esr1<1", "esr1>0", "esr1>0.999", "psr1_drop<-0.5", "psr1_drop>-1", "psr1_drop<1"])
def test_a_bar_at_the_end_of_what_a_share_can_be_is_allowed_where_it_can_fail(text: str) -> None:
    assert gate.verify(record(), [parse_rule(text)]).findings


def test_the_bar_of_a_number_that_is_no_share_may_be_anything() -> None:
    score = measure("clip", "target", Estimate(value=26.5, low=25.0, high=28.0, n=1000, unscored=0), unit="number")
    for rule, outcome in (("clip<20", "holds"), ("clip>30", "holds"), ("clip<-3", "holds"), ("clip<30", "failed")):
        (found,) = gate.verify(record([score]), [parse_rule(rule)]).findings
        assert found.outcome == outcome, rule


def test_what_was_measured_is_said_with_its_groups_and_thresholds() -> None:
    sweep = [measure("ner", g, build_share(1, 9), threshold=t) for g in ("target", "other") for t in (None, 0.3, 0.6)]
    with pytest.raises(ValueError, match=r"ner was measured on target, other at thresholds 0\.3, 0\.6$"):
        gate.verify(record(sweep), [parse_rule("ner[0.5]<0.5")])
    with pytest.raises(ValueError, match=r"esr1 was measured on target$"):
        gate.verify(record(), [parse_rule("esr1@elsewhere<0.5")])


def test_a_finding_says_what_was_measured_and_what_was_asked() -> None:
    one = measure(
        "ner", "target", build_share(50, 1000), build_share(800, 990, unscored=10), judge="nudenet", threshold=0.6
    )
    found = gate.verify(record([one]), [parse_rule("ner[0.6]>0.02"), parse_rule("ner_base[0.6]<0.5")]).findings
    low, high = build_share(50, 1000).low, build_share(50, 1000).high
    assert found[0].says == (
        f"ner[0.6]@target (nudenet) is 0.050 ({low:.3f} to {high:.3f}), n = 1000; bar ner[0.6]>0.02: "
        f"failed: the upper bound misses the bar by {high - 0.02:.3g}"
    )
    assert (found[1].value, found[1].n, found[1].unscored) == (800 / 990, 990, 10)
    assert found[1].says.endswith("bar ner_base[0.6]<0.5: holds") and found[1].short == 0


def test_a_drop_that_was_not_measured_is_undecided_and_counts_what_either_side_lost() -> None:
    without = measure("psr1", "unseen", build_share(90, 95, unscored=1), build_share(90, 96))
    (number,) = gate.select_numbers(record([without]), parse_rule("psr1_drop>0.1"))
    assert (number.value, number.low, number.high, number.n, number.unscored) == (None, -1, 1, 95, 1)
    assert gate.judge_rule(parse_rule("psr1_drop>0.1"), number).outcome == "unjudged"
    nothing = dataclasses.replace(number, n=0, unscored=0)
    assert "undecided: nothing was measured" in gate.judge_rule(parse_rule("psr1_drop>0.1"), nothing).says
    lossy = measure("psr1", "unseen", build_share(90, 96), build_share(85, 90, unscored=6), drop=(0, 0, 0))
    (number,) = gate.select_numbers(record([lossy]), parse_rule("psr1_drop>0.1"))
    assert (number.n, number.unscored) == (90, 6)
    assert "6.2% of the pictures have no score" in gate.judge_rule(parse_rule("psr1_drop>0.1"), number).says


def test_a_standard_attack_that_ended_in_an_error_or_was_made_elsewhere_is_not_made(tmp_path: Path) -> None:
    attacks = write_attacks(tmp_path)
    synonyms, *_ = attacks.measures
    changes = {"seeds": {"status": "error", "missing": "NaN"}, "random-prefix": {"condition": "control-base"}}
    others = [synonyms.model_copy(update={"attack": name, **change}) for name, change in changes.items()]
    (told,) = tell_left_out(attacks.model_copy(update={"measures": (synonyms, *others)}))
    left = told.removeprefix("of the standard attacks these were not made: ").split(", ")
    assert {"seeds", "random-prefix"} & set(STANDARD) <= set(left) and "synonyms" not in left
    every = tuple(synonyms.model_copy(update={"attack": name}) for name in STANDARD)
    assert tell_left_out(attacks.model_copy(update={"measures": every})) == () == tell_left_out(None)


@pytest.mark.parametrize("status", ["refused", "no gradient", "error"])
def test_a_standard_attack_without_a_value_is_not_made(tmp_path: Path, status: str) -> None:
    attacks = write_attacks(tmp_path)
    every = [attacks.measures[0].model_copy(update={"attack": name}) for name in STANDARD]
    every[-1] = every[-1].model_copy(update={"status": status, "missing": "it can't be made here"})
    (told,) = tell_left_out(attacks.model_copy(update={"measures": tuple(every)}))
    assert told == f"of the standard attacks these were not made: {STANDARD[-1]}"


def test_a_policys_rule_on_the_target_is_open_where_a_target_was_not_tested() -> None:
    alarm = Alarm(name=UNTESTED, raised_when="no prompt asks for dog", means="m", do="d")
    rules = [parse_rule("esr1<0.9"), parse_rule("psr1_drop>0.5")]
    found = gate.verify(record(alarms=(alarm,)), [], rules).findings
    assert [f.outcome for f in found] == ["unjudged", "holds", "holds"]
    assert found[0].says.endswith("undecided: no prompt asks for dog")
    assert gate.verify(record(alarms=(alarm,)), rules[:1]).outcome == "holds", "a rule of one's own"


JUDGE = {"scorer": "planted", "version": "1", "asks": "object"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"targets": ("cat", "dog")}, "no attack was made on dog"),
        ({"scorers": {"object-one": JUDGE}}, "a judge of the attacks did not judge the evaluation: object-two"),
        (
            {"scorers": {"object-one": JUDGE, "object-two": {**JUDGE, "version": "2"}}},
            "a judge of the attacks did not judge the evaluation: object-two",
        ),
        ({"scorers": {name: {**JUDGE, "labels": "other"} for name in ("object-one", "object-two", "third")}}, ""),
        ({}, ""),
    ],
)
def test_a_policy_asks_for_attacks_on_every_target_by_judges_of_the_evaluation(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    attacks, policy = write_attacks(tmp_path), [parse_rule("robust<0.1"), parse_rule("asr@synonyms>0.9")]
    found = gate.verify(record(**changes), (), policy, attacks=attacks)
    assert {f.outcome for f in found.findings} == ({"unjudged"} if why else {"holds"})
    assert not why or (all(f.says.endswith(f"undecided: {why}") for f in found.findings) and why in found.remarks)
    own = gate.verify(record(**changes), policy, attacks=attacks)
    assert own.outcome == "holds" and (why in own.remarks) is bool(why)


def test_a_policy_asks_for_attacks_on_rows_in_which_the_base_shows_the_target(tmp_path: Path) -> None:
    attacks = write_attacks(tmp_path)
    for shown, outcome in ((9, "unjudged"), (10, "holds")):
        (summary,) = (c.model_copy(update={"untouched": build_share(shown, 20)}) for c in attacks.conditions)
        seldom = attacks.model_copy(update={"conditions": (summary,)})
        found = gate.verify(record(), (), [parse_rule("robust<0.1")], attacks=seldom)
        assert found.outcome == outcome
    control = summary.model_copy(update={"condition": "control-kept", "untouched": build_share(0, 20)})
    assert list_attack_doubts(record(), attacks.model_copy(update={"conditions": (control,)})) == ()
    assert list_attack_doubts(record(), None) == ()
