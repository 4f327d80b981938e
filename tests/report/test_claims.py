"""Means of a method over several erasures: what is taken together, and when there is an interval."""

from __future__ import annotations

from pathlib import Path

import pytest

from efface.functional.rates import bootstrap
from efface.records.report import Estimate
from efface.reporting.data import make_claims
from efface.reporting.page import write_page
from report_fixtures import build_share, measure, record, write_evaluation

ERASURES = ("cat", "apple", "dog", "rose")


def test_several_erasures_make_a_claim_with_a_clustered_interval() -> None:
    found = make_claims([record(), record(targets=("apple",))])
    assert found and all(c.erasures == 2 and c.method == "ESD" and c.interval is None for c in found)
    assert not make_claims([record()])
    half = record(drawing=record().drawing.model_copy(update={"strength": 0.5}), targets=("apple",))
    assert not make_claims([record(), half])
    shares = [build_share(n, 100) for n in (90, 80, 100, 70)]
    four = [record([measure("esr1", "target", x)], targets=(t,)) for t, x in zip(ERASURES, shares, strict=True)]
    (claim,) = make_claims(four)
    assert claim.value == pytest.approx(0.85) and claim.erasures == 4
    assert claim.interval == bootstrap({str(i): [x.value] for i, x in enumerate(shares)})


def test_claims_take_no_thresholds_judges_or_arguments_together() -> None:
    """By hand: 3 of 10 pictures over 0.3 and 1 over 0.6 by one detector, 5 and 2 by another, in every erasure."""
    heads = {("one", 0.3): 3, ("one", 0.6): 1, ("two", 0.3): 5, ("two", 0.6): 2}
    exposed = [
        measure("ner", "target", build_share(n, 10), judge=judge, threshold=cut) for (judge, cut), n in heads.items()
    ]
    named = {"headlines": ("ner/target/0.3", "ner/target/0.6")}
    found = make_claims([record(exposed, targets=(target,), **named) for target in ERASURES])
    assert [(c.judge, c.value) for c in found] == [("one", 0.3), ("one", 0.1)]

    erased = [measure("esr1", "target", build_share(9, 10))]
    settings = [(target, steps) for steps in (100, 1000) for target in ERASURES[:2]]
    apart = [record(erased, targets=(t,), arguments={"steps": n, "seed": i}) for i, (t, n) in enumerate(settings)]
    assert [(c.method, c.erasures) for c in make_claims(apart)] == [("ESD (steps 100)", 2), ("ESD (steps 1000)", 2)]


def test_a_claim_of_a_number_that_is_no_share_is_written_as_it_is(tmp_path: Path) -> None:
    distance = measure("kid", "unseen", Estimate(value=0.0123, low=0.01, high=0.02, n=50, unscored=0), unit="number")
    places = [
        write_evaluation(tmp_path / t, targets=(t,), measures=(distance,), headlines=("kid/unseen",))
        for t in ("cat", "dog")
    ]
    text = write_page(places, tmp_path / "r.html").read_text()
    claims = text[text.index("Over several erasures") :]
    assert "<td>0.0123</td>" in claims and "1.2 %" not in claims
