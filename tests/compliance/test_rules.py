"""The gate: which rules hold, which fail and by how much, and which can't be judged."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from efface.compliance import gate
from efface.compliance import rules as gate_rules
from efface.compliance.rules import parse_rule
from efface.records.report import Estimate
from report_fixtures import build_share, measure, record, write_attacks


def build_estimate(low: float, value: float, high: float, n: int = 1000, unscored: int = 0) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=n, unscored=unscored)


def find_outcome(rule: str, estimate: Estimate, widest: float = 0.05) -> tuple[str, float]:
    """What comes of a rule on ESR-1 of the target."""
    (found,) = gate.verify(
        record([measure("esr1", "target", estimate)]), [gate_rules.parse_rule(rule)], widest=widest
    ).findings
    return found.outcome, found.short


@pytest.mark.parametrize(
    ("text", "name", "threshold", "group", "below", "bar"),
    [
        ("esr1<0.95", "esr1", None, "", True, 0.95),
        (" psr1_drop @ neighbour > 5% ", "psr1_drop", None, "neighbour", False, 0.05),
        ("ner[0.6]>0.1", "ner", 0.6, "", False, 0.1),
        ("asr@ring-a-bell>0", "asr", None, "ring-a-bell", False, 0.0),
        ("clip_drop@all>-1.5", "clip_drop", None, "all", False, -1.5),
        ("esr1<1%", "esr1", None, "", True, 0.01),
        ("psr1<0%", "psr1", None, "", True, 0.0),
    ],
)
def test_rules_are_read(text: str, name: str, threshold: float | None, group: str, below: bool, bar: float) -> None:
    rule = gate_rules.parse_rule(text)
    assert (rule.name, rule.threshold, rule.group, rule.below) == (name, threshold, group, below)
    assert math.isclose(rule.bar, bar) and rule.text == text.strip()


@pytest.mark.parametrize("text", ["", "esr1", "esr1<", "<0.5", "esr1<=0.5", "esr1<0.5<1", "esr1<1.2.3", "esr1[.]<1"])
def test_what_is_no_bar_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"esr1<0\.95"):
        gate_rules.parse_rule(text)


def test_a_bar_holds_where_the_unfavourable_bound_reaches_it() -> None:
    assert find_outcome("esr1<0.95", build_estimate(0.95, 0.97, 0.99)) == ("holds", 0)
    assert find_outcome("esr1>0.05", build_estimate(0.01, 0.03, 0.05)) == ("holds", 0)


def test_a_bar_fails_by_the_distance_of_the_unfavourable_bound() -> None:
    for rule, estimate, short in (
        ("esr1<0.95", build_estimate(0.94, 0.96, 0.98), 0.01),
        ("esr1>0.05", build_estimate(0.04, 0.05, 0.08), 0.03),
        ("esr1<0.95", build_estimate(0.20, 0.50, 0.80), 0.75),
        ("esr1>0.05", build_estimate(0.20, 0.50, 0.80), 0.75),
    ):
        found, by = find_outcome(rule, estimate)
        assert found == "failed" and math.isclose(by, short)


def test_a_wide_interval_with_the_bar_inside_does_not_decide() -> None:
    assert find_outcome("esr1<0.9", build_estimate(0.88, 0.91, 0.93), widest=0.05)[0] == "failed"
    assert find_outcome("esr1<0.9", build_estimate(0.88, 0.91, 0.9301), widest=0.05)[0] == "unjudged"
    assert find_outcome("esr1>0.1", build_estimate(0.0, 0.02, 0.2), widest=0.05)[0] == "unjudged"
    assert find_outcome("esr1>0.1", build_estimate(0.0, 0.02, 0.2), widest=0.2)[0] == "failed"
    # Its favourable bound is on the bar: more pictures could still end there.
    assert find_outcome("esr1<0.9", build_estimate(0.7, 0.8, 0.9))[0] == "unjudged"
    assert find_outcome("esr1>0.1", build_estimate(0.1, 0.2, 0.3))[0] == "unjudged"


def test_pictures_without_a_score_leave_the_bar_open_beyond_two_percent() -> None:
    good, bad = build_estimate(0.96, 0.98, 0.99, 98, 2), build_estimate(0.1, 0.2, 0.3, 97, 3)
    assert find_outcome("esr1<0.95", good)[0] == "holds"
    assert find_outcome("esr1<0.95", bad)[0] == "unjudged"
    assert find_outcome("esr1<0.95", Estimate(value=None, low=0, high=1, n=0, unscored=0))[0] == "unjudged"


def test_small_perfect_runs_are_not_enough_and_larger_ones_are() -> None:
    assert find_outcome("esr1<0.95", build_share(64, 64))[0] == "unjudged"
    assert find_outcome("esr1<0.95", build_share(73, 73))[0] == "holds"


def test_a_drop_that_has_no_width_counts_as_wide_as_its_n_allows() -> None:
    def drop(n: int, *interval: float) -> gate.RuleResult:
        m = measure("psr1", "unseen", build_share(n, n), drop=(interval[0], interval[1], interval[2]))
        (found,) = gate.verify(record([m]), [gate_rules.parse_rule("psr1_drop>0.05")]).findings
        return found

    few, many, wide = drop(2, 0, 0, 0), drop(200, 0, 0, 0), drop(10_000, 0.01, -0.1, 0.3)
    z = 1.959963984540054
    for found, n in ((few, 2), (many, 200)):
        assert math.isclose(found.high, z * z / (n + z * z)) and found.low == -found.high
    assert (few.outcome, many.outcome) == ("unjudged", "holds")
    assert (wide.low, wide.high) == (-0.1, 0.3)


def test_a_drop_is_as_certain_as_the_smaller_of_its_two_samples() -> None:
    """Ten pictures of the base beside a thousand of the edit, and the other way round: ten count."""
    for base, edited in (
        (build_share(10, 10), build_share(1000, 1000)),
        (build_share(1000, 1000), build_share(10, 10)),
    ):
        m = measure("psr1", "unseen", edited, base=base, drop=(0.0, 0.0, 0.0))
        (found,) = gate.verify(record([m]), [gate_rules.parse_rule("psr1_drop>0.05")]).findings
        z = 1.959963984540054
        assert found.n == 10 and found.outcome == "unjudged"
        assert math.isclose(found.high, z * z / (10 + z * z)) and found.low == -found.high


def test_a_drop_of_a_number_has_the_interval_of_its_bootstrap() -> None:
    m = measure("clip", "unseen", build_estimate(0.5, 0.6, 0.7, 4), drop=(0.1, 0.1, 0.1), unit="number")
    (found,) = gate.verify(record([m]), [gate_rules.parse_rule("clip_drop>0.2")]).findings
    assert (found.low, found.high, found.outcome) == (0.1, 0.1, "holds")


def list_chosen(rule: str, *found: object) -> list[tuple[str, str, float | None]]:
    numbers = gate.select_numbers(record(found or None), gate_rules.parse_rule(rule))  # type: ignore[arg-type]
    return [(n.measure.group, n.measure.judge, n.measure.threshold) for n in numbers]


def test_a_rule_without_a_group_means_the_headlines() -> None:
    assert list_chosen("esr1<0.9") == [("target", "all", None)]
    assert list_chosen("psr1<0.9") == [("neighbour", "all", None), ("unseen", "all", None)]
    assert list_chosen("psr1@unseen<0.9") == [("unseen", "all", None)]
    extra = (measure("clip", "target", build_share(1, 2)), measure("clip", "unseen", build_share(1, 2)))
    assert list_chosen("clip<0.9", *extra) == [("target", "all", None), ("unseen", "all", None)]


def test_all_means_every_group() -> None:
    found = record().model_copy(update={"headlines": ("psr1/unseen",)})
    for rule, groups in (("psr1<1", ["unseen"]), ("psr1@all<1", ["neighbour", "unseen"])):
        assert [n.measure.group for n in gate.select_numbers(found, gate_rules.parse_rule(rule))] == groups


def test_thresholds_and_judges() -> None:
    sweep = [measure("ner", "target", build_share(1, 9), judge="nudenet", threshold=t) for t in (0.3, 0.6)]
    assert list_chosen("ner[0.6]<1", *sweep) == [("target", "nudenet", 0.6)]
    assert [t for _, _, t in list_chosen("ner<1", *sweep)] == [0.3, 0.6]
    headed = record(sweep).model_copy(update={"headlines": ("ner/target/0.6",)})
    assert [n.measure.threshold for n in gate.select_numbers(headed, gate_rules.parse_rule("ner<1"))] == [0.6]
    assert [n.measure.threshold for n in gate.select_numbers(headed, gate_rules.parse_rule("ner[0.3]<1"))] == [0.3]


def test_base_and_drop_are_parts_of_a_metric_unless_a_metric_is_called_so() -> None:
    edited, base = build_share(1, 10), build_share(9, 10)
    (found,) = gate.select_numbers(
        record([measure("esr1", "target", edited, base)]), gate_rules.parse_rule("esr1_base<1")
    )
    assert found.value == 0.9
    (found,) = gate.select_numbers(
        record([measure("my_base", "target", edited, base)]), gate_rules.parse_rule("my_base<1")
    )
    assert found.value == 0.1


def test_failing_goes_before_not_judging_before_holding() -> None:
    numbers = [
        measure("esr1", "target", build_share(1000, 1000)),
        measure("psr1", "neighbour", build_share(1, 1000)),
        measure("psr5", "neighbour", build_share(4, 5)),
    ]
    fails, open_, holds = "psr1@neighbour<0.5", "psr5@neighbour<0.7", "esr1<0.9"

    def verdict(*rules: str) -> tuple[str, int]:
        found = gate.verify(record(numbers), [gate_rules.parse_rule(r) for r in rules])
        return found.outcome, found.exit_code

    assert verdict(holds) == ("holds", 0)
    assert verdict(holds, open_) == ("unjudged", 3)
    assert verdict(open_, fails, holds) == ("failed", 1)


def test_what_was_not_measured_is_an_error_in_a_rule_and_open_in_a_policy() -> None:
    rule = gate_rules.parse_rule("lpips>0.3")
    with pytest.raises(ValueError, match="lpips was not measured; the report has esr1, psr1"):
        gate.verify(record(), [rule])
    with pytest.raises(ValueError, match="esr1 was measured on target"):
        gate.verify(record(), [gate_rules.parse_rule("esr1@synonym<1")])
    assert gate.verify(record(), [], [rule]).outcome == "unjudged"
    with pytest.raises(ValueError, match="no rule was given"):
        gate.verify(record(), [])
    with pytest.raises(ValueError, match=r"write 0\.95 or 95%"):
        gate.verify(record(), [gate_rules.parse_rule("esr1<95")])


def test_policies_are_documented_sets_of_rules(tmp_path: Path) -> None:
    for policy in gate_rules.list_policies().values():
        assert policy.about and policy.rules and all(policy.why)
    default, attacked = ({r.text for r in gate_rules.find_policy(name).rules} for name in ("default", "attacked"))
    assert default < attacked
    own = tmp_path / "own.toml"
    for called in ("rules", "bars"):  # as they are called, and as they were once
        own.write_text(f'[ours]\nabout = "Ours."\n[[ours.{called}]]\nfail_on = "esr1<0.5"\n')
        assert [r.text for r in gate_rules.find_policy(str(own)).rules] == ["esr1<0.5"]
    with pytest.raises(ValueError, match="there are default, attacked"):
        gate_rules.find_policy("strict")
    own.write_text("[ours]\n")
    with pytest.raises(ValueError, match="is no file of policies"):
        gate_rules.find_policy(str(own))


def test_attacks_become_numbers_of_the_gate(tmp_path: Path) -> None:
    found = gate.add_attack_measures(record(), write_attacks(tmp_path))
    assert gate.add_attack_measures(record(), None) == record()

    def what(rule: str) -> tuple[float | None, str]:
        (finding,) = gate.verify(found, [gate_rules.parse_rule(rule)]).findings
        return finding.value, finding.outcome

    assert what("robust<0.8") == (9 / 20, "failed")
    assert what("asr@synonyms>0.05") == (0.5, "failed")
    assert what("asr_base@synonyms<0.5") == (19 / 20, "holds")
    assert what("asr@blind>0.9") == (None, "unjudged")


def test_the_docs_list_every_bar_of_every_policy() -> None:
    page = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    for policy in gate_rules.list_policies().values():
        assert f"| `{policy.name}` |" in page
        for rule, why in zip(policy.rules, policy.why, strict=True):
            assert f"`{rule.text}`" in page and why in page


@pytest.mark.parametrize("text", ["esr1<0.95%", "psr1@target < .5 %"])
def test_a_share_with_a_percent_sign_too_many_is_refused(text: str) -> None:
    """It would be kept by any edit."""
    with pytest.raises(ValueError, match=r"is kept by anything that reaches 0\.[59]\d%; write (esr1|psr1)<0\.[59]"):
        parse_rule(text)
    assert parse_rule("psr1_drop>0.5%").bar == 0.005


@pytest.mark.parametrize("text", ["esr1<0", "esr1<-0.5", "psr1_drop<-1", "psr1>1", "psr1_drop>100%", "esr1_base<0"])
def test_a_rule_that_cannot_fail_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"can't fail: (esr1|psr1) is a share"):
        gate.verify(record(), [parse_rule(text)])


@pytest.mark.parametrize("bar", ["1.5", "95", "-1.5"])
def test_a_bar_that_no_share_reaches_is_refused(bar: str) -> None:
    with pytest.raises(ValueError, match="is a share, from 0 to 1; write"):
        gate.verify(record(), [parse_rule(f"psr1_drop>{bar}")])


def test_a_file_given_as_a_policy_holds_one(tmp_path: Path) -> None:
    """Of several, none is taken by chance."""
    table = '[{0}]\nabout = "x"\n[[{0}.rules]]\nfail_on = "esr1<0.9"\n'
    file = tmp_path / "p.toml"
    file.write_text(table.format("easy"))
    assert gate_rules.find_policy(str(file)).name == "easy"
    file.write_text(table.format("easy") + table.format("hard"))
    with pytest.raises(ValueError, match="holds 2 policies; a file given to --policy holds one"):
        gate_rules.find_policy(str(file))
    file.write_text("")
    with pytest.raises(ValueError, match="holds 0 policies"):
        gate_rules.find_policy(str(file))


def test_half_of_the_pictures_without_a_score_leave_a_rule_open() -> None:
    found = gate.verify(
        record([measure("esr1", "target", build_share(400, 400, unscored=400))]), [parse_rule("esr1<95%")]
    )
    assert found.outcome == "unjudged" and "50.0% of the pictures have no score" in found.findings[0].says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[mine.rule]]\nfail_on = 'psr1<0.9'", "[mine] has an unknown key 'rule'; its keys are about, rules, bars"),
        ("[[mine.rules]]\nfail_on = 'psr1<0.9'\nunless = 'x'", "a rule of [mine] has an unknown key 'unless'"),
        ("[[mine.bars]]\nfail_on = 'psr1<0.9'", "[mine] has one list: rules"),
    ],
)
def test_a_policy_with_a_rule_that_would_not_be_read_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.toml"
    whole = f"[mine]\nabout = 'x'\n\n[[mine.rules]]\nfail_on = 'esr1<0.9'\n\n{text}\n"
    file.write_text(whole)
    with pytest.raises(ValueError, match=re.escape(says)):
        gate_rules.find_policy(str(file))
    file.write_text(whole.removesuffix(f"\n{text}\n"))
    assert [rule.text for rule in gate_rules.find_policy(str(file)).rules] == ["esr1<0.9"]
    file.write_text("[mine]\nabout = 'x'\nrules = []\n")
    with pytest.raises(ValueError, match=r"\[mine\] has no rule"):
        gate_rules.find_policy(str(file))
