"""Numbers in words: rounding takes none over a limit, and a title names what a number depends on."""

from __future__ import annotations

import pytest

from efface.compliance import gate
from efface.compliance.rules import parse_rule
from efface.records.report import Estimate
from efface.reporting.verdict import build_verdict
from efface.reporting.wording import format_card_title, format_estimate, format_number
from report_fixtures import build_share, measure, record


@pytest.mark.parametrize(
    ("shown", "lost", "words"),
    [
        (252, 0.0, "“cat” still appears in 5.04 % of pictures, 5 % allowed"),
        (249, 0.0, "“cat” may appear in up to 5.6 % of pictures, 5 % allowed"),
        (1, 0.0504, "near neighbours lose 5.04 points, 5 allowed"),
        (1, 0.0404, "near neighbours may lose up to 5.04 points, 5 allowed"),
        (1, 0.0, "“cat” appears in 0.02 % of pictures, 5 % allowed"),
    ],
)
def test_rounding_takes_no_number_over_a_limit(shown: int, lost: float, words: str) -> None:
    found = build_verdict(
        record(
            [
                measure("esr1", "target", build_share(5000 - shown, 5000), build_share(20, 5000)),
                measure("psr1", "neighbour", build_share(4000, 5000), drop=(lost, lost - 0.01, lost + 0.01)),
            ]
        )
    )
    assert words in found.sentence


def test_rounding_does_not_bring_what_the_base_draws_to_the_limit() -> None:
    found = build_verdict(record([measure("esr1", "target", build_share(5000, 5000), build_share(2508, 5000))]))
    assert "only 49.8 % of its pictures" in found.sentence


def test_a_card_names_the_number_of_labels_and_the_threshold() -> None:
    """A protocol has several headlines of one metric: of ESR at two depths, of NER at four thresholds."""
    share = build_share(1, 2)
    heads = [measure(name, "target", share) for name in ("esr1", "esr5", "psr1", "psr5")]
    heads += [measure("ner", "target", share, threshold=cut) for cut in (0.3, 0.5)]
    assert [format_card_title(m) for m in heads] == [
        *("Erased: target", "Erased: target, first 5 answers", "Kept: target", "Kept: target, first 5 answers"),
        *("ner over 0.3: target", "ner over 0.5: target"),
    ]


def test_a_share_is_written_as_none_or_all_only_where_it_is() -> None:
    shares = (0.0, 1 / 4703, 0.0006, 0.5, 4702 / 4703, 1.0)
    assert [format_number(x) for x in shares] == ["0.0 %", "0.02 %", "0.1 %", "50.0 %", "99.98 %", "100.0 %"]


def test_the_mean_of_one_picture_has_no_interval_and_decides_nothing() -> None:
    one = Estimate(value=0.31, low=0.31, high=0.31, n=1, unscored=0)
    assert format_estimate(one, "number") == "0.31 (one number has no interval; n = 1)"
    rule = parse_rule("clip<0.2")
    for mean, outcome in ((one, "unjudged"), (one.model_copy(update={"n": 2}), "holds")):
        (number,) = gate.select_numbers(record([measure("clip", "unseen", mean, unit="number")]), rule)
        assert gate.judge_rule(rule, number).outcome == outcome
