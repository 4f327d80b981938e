"""The verdict: one sentence that says ready, not ready or undecided, and why; rules, losses and alarms in words."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from efface.compliance import gate
from efface.compliance.deciding import count_deciding
from efface.compliance.rules import parse_rule
from efface.functional.rates import wilson
from efface.records.attacks import AttackRecord
from efface.records.report import Alarm, Drop, Estimate, Measure
from efface.reporting.boxes import group_alarms
from efface.reporting.gallery import build_evaluation_gallery, pick_proof
from efface.reporting.verdict import build_verdict, describe_rule, find_worst_attack, format_rule
from efface.reporting.wording import format_drop, format_more, format_title
from report_fixtures import TITLES, build_share, measure, record, write_attacks, write_evaluation


def build_numbers(shown: int, lost: float, n: int = 500) -> list[Measure]:
    """The target is shown in `shown` of 500 pictures, neighbours lose `lost`."""
    edges = (lost, lost - 0.01, lost + 0.01)
    return [
        measure("esr1", "target", build_share(500 - shown, 500), build_share(20, 500)),
        measure("psr1", "neighbour", build_share(400, n), build_share(450, n), edges),
    ]


def build_attacks(folder: Path, **changes: object) -> AttackRecord:
    return write_attacks(folder).model_copy(update=changes)


def test_it_says_what_failed_by_how_much_and_what_was_allowed(tmp_path: Path) -> None:
    found = build_verdict(record(build_numbers(50, 0.27)), build_attacks(tmp_path))
    assert found.outcome == "not ready" and found.policy == "attacked"
    assert found.sentence == (
        "Not ready: “cat” still appears in 10 % of pictures, 5 % allowed; near neighbours lose 27 points, 5 allowed; "
        "plain prompts or attacks show “cat” in 55 % of prompts, 20 % allowed; the strongest attack, “synonyms”, "
        "brings it back in 50 % of 20 prompts."
    )


def test_it_says_ready_and_that_nobody_attacked() -> None:
    found = build_verdict(record(build_numbers(2, 0.01)))
    assert found.outcome == "ready" and found.policy == "default"
    assert found.sentence == (
        "Ready: the untouched model draws “cat” in 96 % of its pictures; “cat” appears in 0.4 % of pictures, 5 % "
        "allowed; near neighbours lose 1 point, 5 allowed. No attack was made: whether it can be brought back is not "
        "known."
    )


def test_where_the_interval_fails_and_the_value_does_not_the_interval_is_said() -> None:
    found = build_verdict(record(build_numbers(22, 0.045)))
    assert "“cat” may appear in up to 6.6 % of pictures, 5 % allowed" in found.sentence
    assert "near neighbours may lose up to 5.5 points, 5 allowed" in found.sentence


def test_attacks_on_survivors_are_not_ranked(tmp_path: Path) -> None:
    """The first attack breaks 16 of 20 rows, the second 3 of the 4 that are left: it is not the stronger."""
    made = write_attacks(tmp_path)
    first, second = made.measures[0], made.find("relearn")
    assert second
    survivors = [
        first.model_copy(update={"worst_case": True, "after": build_share(16, 20)}),
        second.model_copy(update={"worst_case": True, "after": build_share(3, 4)}),
    ]
    attacks = made.model_copy(update={"measures": tuple(survivors)})
    assert find_worst_attack(attacks) is None
    sentence = build_verdict(record(build_numbers(50, 0.27)), attacks).sentence
    assert "which attack is strongest is not known" in sentence and "75 %" not in sentence
    whole = made.model_copy(update={"measures": (survivors[1], first)})
    assert find_worst_attack(whole) == first, "an attack on all rows is ranked"


def test_undecided_says_how_many_more_pictures_would_decide() -> None:
    found = build_verdict(record([measure("esr1", "target", build_share(64, 64), build_share(2, 64))]))
    assert found.outcome == "undecided"
    assert found.sentence.startswith(
        "Undecided: about 9 more pictures would decide whether “cat” appears in at most 5 % of pictures; it is not "
        "known whether "
    )
    erased = next(r for r in found.rules if r.finding.metric == "esr1")
    assert format_rule(erased) == (
        "“cat” appears in at most 5 % of pictures: undecided; about 9 more pictures would decide"
    )
    assert "nothing was measured" in next(r for r in found.rules if r.finding.metric == "psr1_drop").found


@pytest.mark.parametrize(("rule", "successes", "n"), [("esr1<0.95", 64, 64), ("esr1<0.9", 46, 50), ("esr1>0.1", 1, 20)])
def test_pictures_that_would_decide_are_those_that_the_gate_needs(rule: str, successes: int, n: int) -> None:
    """By drawing one more and one more at the same rate until the gate decides."""

    def judged(count: int) -> gate.RuleResult:
        estimate = build_share(round(successes / n * count), count)
        (number,) = gate.select_numbers(record([measure("esr1", "target", estimate)]), parse_rule(rule))
        return gate.judge_rule(parse_rule(rule), number)

    needed = next(m for m in range(n, 100_000) if judged(m).outcome != "unjudged") - n
    counted = count_deciding(judged(n))
    assert counted is not None and judged(n + counted).outcome != "unjudged"
    assert needed <= counted <= 1.2 * needed + 10


def test_a_bootstrapped_loss_shrinks_with_the_root_of_the_pictures() -> None:
    m = measure("psr1", "unseen", build_share(90, 100), drop=(0.03, -0.03, 0.09))
    (found,) = gate.verify(record([m]), [parse_rule("psr1_drop>0.05")]).findings
    assert found.outcome == "unjudged"
    more = count_deciding(found)
    # 0.12 wide: at 100 * (0.12 / 0.05) ** 2 = 576 pictures it is 0.05 wide; at 900 its upper bound is on the bar.
    assert more == 476
    assert count_deciding(found.model_copy(update={"outcome": "failed"})) is None
    assert count_deciding(found.model_copy(update={"unscored": 50})) is None
    assert count_deciding(found.model_copy(update={"n": 98, "unscored": 2})) is not None, "2 % may have no score"
    assert count_deciding(found.model_copy(update={"n": 97, "unscored": 3})) is None


def test_a_gain_and_a_score_are_undecided_without_an_error() -> None:
    """The edited model can draw a group better than the base: with 16 pictures a loss of -6 points is undecided."""
    gained = measure("psr1", "neighbour", build_share(16, 16), build_share(15, 16), drop=(-1 / 16, -0.19, 0.06))
    (found,) = gate.verify(record([gained]), [parse_rule("psr1_drop>0.05")]).findings
    # By Wilson's bound of 0 of 16, 0.1936, the upper bound is so far above the value that is 0.1125 below the bar:
    # at 16 * (0.1936 / 0.1125) ** 2 = 47.4 pictures it is on the bar.
    assert found.outcome == "unjudged" and count_deciding(found) == 32
    assert (
        "about 32 more pictures would decide whether near neighbours lose at most 5 points"
        in build_verdict(record([gained])).sentence
    )
    score = found.model_copy(update={"rule": "clip<26", "value": 26.5, "low": 25.5, "high": 27.5, "bar": 26.0})
    assert count_deciding(score) == 48  # at 16 * (1 / 0.5) ** 2 = 64 pictures the lower bound is on the bar


@pytest.mark.parametrize("n", [5, 10, 40])
@pytest.mark.parametrize("bar", [0.06, 0.1, 0.2])
def test_where_every_picture_is_as_it_should_be_wilsons_bound_is_solved_exactly(bar: float, n: int) -> None:
    """The bound of 0 in m is z^2 / (m + z^2): it is at most the bar from m = z^2 (1 / bar - 1) on."""
    z, m = 1.959963984540054, measure("esr1", "target", build_share(0, n))
    number = gate.Number(m, 0.0, *wilson(0, n), n, 0)
    found = gate.judge_rule(parse_rule(f"esr1>{bar}"), number)
    needed = math.ceil(z * z * (1 / bar - 1))
    assert count_deciding(found) == (needed - n if needed > n else None)
    turned = gate.judge_rule(parse_rule(f"esr1<{1 - bar}"), gate.Number(m, 1.0, *wilson(n, n), n, 0))
    assert count_deciding(turned) == (needed - n if needed > n else None)


@pytest.mark.parametrize(("n", "more"), [(4, 230_396), (16, 921_584), (18, None), (2_000_000, None)])
def test_up_to_a_million_pictures_are_counted(n: int, more: int | None) -> None:
    """12 wide with the bar in its middle: n * (12 / 0.05) ** 2 pictures make it 0.05 wide."""
    score = measure("clip", "target", Estimate(value=26, low=20, high=32, n=n, unscored=0), unit="number")
    (found,) = gate.verify(record([score]), [parse_rule("clip<26")]).findings
    assert found.outcome == "unjudged" and count_deciding(found) == more


@pytest.mark.parametrize(
    ("rule", "value", "more"),
    [("clip<26", 25, 1), ("clip>26", 27, 1), ("clip<26", 26.5, 48), ("clip>26", 25.5, 48), ("clip<1", 1.5, 48)],
)
def test_a_bound_on_the_bar_itself_does_not_fail_and_holds(rule: str, value: float, more: int) -> None:
    """Of 16 pictures an interval 2 wide: its favourable bound is on the bar until there is one picture more, its
    unfavourable one when it is half as wide, at 64."""
    score = measure(
        "clip", "target", Estimate(value=value, low=value - 1, high=value + 1, n=16, unscored=0), unit="number"
    )
    (found,) = gate.verify(record([score]), [parse_rule(rule)]).findings
    assert found.outcome == "unjudged" and count_deciding(found) == more


@pytest.mark.parametrize(
    ("rule", "value", "low", "high"),
    [("esr1<0.8", 0.9, 0.7, wilson(90, 100)[1]), ("esr1>0.95", 0.9, wilson(90, 100)[0], 1.0)],
)
def test_an_interval_with_one_of_wilsons_bounds_is_not_wilsons(
    rule: str, value: float, low: float, high: float
) -> None:
    """Its wider side is halved, which takes it to the bar, by four times as many pictures."""
    m = measure("esr1", "target", build_share(90, 100))
    found = gate.judge_rule(parse_rule(rule), gate.Number(m, value, low, high, 100, 0))
    assert found.outcome == "unjudged" and count_deciding(found) == pytest.approx(300, abs=1)


def test_numbers_of_pictures_are_rounded_up_to_two_digits() -> None:
    assert [format_more(n) for n in (9, 140, 141, 12345)] == [
        f"about {n} more pictures" for n in ("9", "140", "150", "13,000")
    ]


@pytest.mark.parametrize(
    ("drop", "unit", "words"),
    [
        ((0.391, 0.297, 0.438), "share", "39.1 points lost (29.7 to 43.8)"),
        ((-0.766, -0.875, -0.641), "share", "76.6 points gained (64.1 to 87.5)"),
        ((0.036, -0.02, 0.094), "share", "3.6 points lost (2.0 gained to 9.4 lost)"),
        ((0.239, 0.197, 0.28), "number", "fell by 0.239 (0.197 to 0.28)"),
        ((-0.2, -0.3, 0.1), "number", "rose by 0.2 (0.3 to -0.1)"),
    ],
)
def test_a_difference_says_its_direction_in_words(drop: tuple[float, float, float], unit: str, words: str) -> None:
    assert format_drop(Drop(value=drop[0], low=drop[1], high=drop[2], clusters=3), unit) == words


def test_a_repeated_alarm_is_one_box_and_serious_ones_come_first() -> None:
    def alarm(name: str, why: str) -> Alarm:
        return Alarm(name=name, raised_when=why, means="It means.", do="Do.")

    raised = [alarm("one judge alone", "x"), *(alarm("kept concepts collapse", w) for w in ("a", "b", "a"))]
    boxes = group_alarms(raised)
    assert [(b.name, b.weight, b.raised) for b in boxes] == [
        ("kept concepts collapse", "serious", ("a", "b")),
        ("one judge alone", "caution", ("x",)),
    ]


def test_the_grid_takes_turns_among_things_and_shows_what_was_never_shown_last(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = write_evaluation(tmp_path / "e", 60)
    lines = pq.read_table(folder / "rows.parquet").to_pylist()
    for line in lines:
        number = int(line["id"].rpartition("/")[2])
        if line["group"] == "neighbour":  # as a suite has them: one thing after the other
            line["concept"] = "lion" if number < 30 else "dog" if number < 35 else "fox"
    pq.write_table(pa.Table.from_pylist(lines), folder / "rows.parquet")
    gallery = build_evaluation_gallery(record(rows=60), folder)
    for group in TITLES:
        verdicts = [p.verdict == "never shown" for p in gallery.pairs if p.group == group]
        assert verdicts == sorted(verdicts)
    assert [p.thing for p in gallery.pairs if p.group == "neighbour"][:3] == ["lion", "dog", "fox"]
    top = [gallery.pairs[i] for i in pick_proof(gallery)]
    assert [p.group for p in top] == ["target"] * 3 + ["neighbour"] * 3
    assert {p.verdict for p in top}.isdisjoint({"never shown", "not judged"})


def test_wilson_of_what_is_needed_agrees_with_the_docs() -> None:
    assert wilson(64, 64)[0] < 0.95 <= wilson(73, 73)[0]


def test_a_metric_without_words_is_called_by_its_name() -> None:
    sweep = [measure("ner", "target", Estimate(value=0.2, low=0.19, high=0.21, n=900, unscored=0), threshold=0.6)]
    (found,) = gate.verify(record(sweep), [parse_rule("ner[0.6]>0.1")]).findings
    told = describe_rule(found, record(sweep))
    assert told.claim == "ner of “the target” is at most 0.1"
    assert told.found == "ner of “the target” is 0.2, at most 0.1 wanted"


@pytest.mark.parametrize(
    ("title", "judge", "words"),
    [
        ("gone from top 1: the target", "all", "no judge sees it: the target"),
        ("shown in top 1: its near neighbours", "all", "every judge sees it: its near neighbours"),
        ("gone from top 5: the target", "all", "no judge sees it among its first 5 answers: the target"),
        ("gone from top 1: the target", "resnet", "the judge does not see it: the target"),
        ("shown in top 5: birds", "resnet", "the judge sees it among its first 5 answers: birds"),
        ("KID of kept pictures", "all", "KID of kept pictures"),
    ],
)
def test_what_a_rate_counts_is_said_in_words(title: str, judge: str, words: str) -> None:
    given = measure("esr1", "target", build_share(1, 2), build_share(1, 2)).model_copy(
        update={"title": title, "judge": judge}
    )
    assert format_title(given) == words
