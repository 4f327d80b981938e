"""Attacks that give no rate or can't be made: no gradient, no number, bad input, nothing to attack."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from attack_plan import Plan, Planned, Reader
from efface.attacks.base import Attack
from efface.attacks.seeds import Seeds
from efface.attacks.synonyms import Synonyms
from efface.robustness.campaign import Campaign, attack
from efface.robustness.conditions import ConceptAliases
from magic_word import Magic
from runner_fixtures import ROWS, TWO, Setup, choose_plainly


def test_a_loss_that_is_no_number_is_an_error_of_the_attack(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record, _ = setup.run(monkeypatch, choose_plainly, tmp_path, [Magic(blind="nan")])
    measure = record.find("magic-word")
    assert measure is not None and (measure.status, measure.after.value) == ("error", None)
    assert {"an attack ended in an error"} <= {a.name for a in record.alarms} and record.robust.value == 1


def test_no_gradient_is_an_alarm_and_no_rate(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record, _ = setup.run(monkeypatch, choose_plainly, tmp_path, [Magic(blind="all"), Seeds(queries=1)])
    measure = record.find("magic-word")
    assert measure is not None and measure.after.value is None and measure.curve == () and "zero" in measure.missing
    assert [a.name for a in record.alarms].count("zero gradients") == 3
    assert record.robust.value == 1


def test_what_was_broken_before_the_gradient_was_lost_counts(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record, _ = setup.run(monkeypatch, choose_plainly, tmp_path, [Magic(blind="rest"), Seeds(queries=1)])
    measure, rest = record.find("magic-word"), ROWS % Magic.batch_size
    assert measure is not None and rest and "zero" in measure.missing
    assert (measure.after.value, measure.after.n, measure.after.unscored) == (1, ROWS - rest, rest)
    assert len([s for s in record.successes if (s.attack, s.condition) == ("magic-word", "target")]) == ROWS - rest
    assert record.robust.value == rest / ROWS


@pytest.mark.parametrize(("blind", "status"), [("after", "no gradient"), ("nan after", "error")])
def test_what_an_unfinished_batch_broke_counts(
    blind: Any, status: str, setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of the first batch of four rows two are broken; the attack then ends, and no other row is known to withstand."""
    attacks = [Magic(blind=blind), Seeds(queries=1)]
    record, _ = setup.run(monkeypatch, choose_plainly, tmp_path, attacks)
    measure = record.find("magic-word")
    assert measure is not None and (measure.status, measure.drawn) == (status, 2 * Magic.turn + 2 * (Magic.turn - 1))
    assert (measure.after.value, measure.after.n, measure.after.unscored) == (1, 2, ROWS - 2)
    broken = [s.row for s in record.successes if (s.attack, s.condition) == ("magic-word", "target")]
    assert len(broken) == 2 and all(record.worst[row] for row in broken)
    assert record.robust.value == (ROWS - 2) / ROWS
    again, drawn = setup.run(monkeypatch, choose_plainly, tmp_path, attacks)
    assert again.worst == record.worst and drawn.calls, "an unfinished batch is attacked again"


def test_what_cannot_be_made_is_refused_or_skipped_with_an_alarm(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attacks = [Magic(needs="this edit gives no gradients; seeds works"), Seeds(queries=1)]
    with pytest.raises(ValueError, match="gives no gradients; seeds works"):
        setup.run(monkeypatch, choose_plainly, tmp_path, attacks)
    record, _ = setup.run(monkeypatch, choose_plainly, tmp_path, attacks, skip=True)
    measure = record.find("magic-word")
    assert measure is not None and measure.missing and measure.after.value is None
    assert "an attack could not be made" in [a.name for a in record.alarms]
    with pytest.raises(ValueError, match="gives no gradients"):
        setup.run(monkeypatch, choose_plainly, tmp_path / "b", attacks[:1], skip=True)
    assert not (tmp_path / "b").exists()


def test_bad_input_is_refused_before_work(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(match: str, attacks: Sequence[Attack], plan: Plan = choose_plainly, **how: Any) -> Planned:
        drawn = Planned(setup.model, plan)
        with pytest.raises(ValueError, match=match):
            setup.run(monkeypatch, plan, tmp_path, attacks, **how)
        return drawn

    refused("at least one attack", [])
    refused("each once", [Magic(), Magic(turn=1)])
    with pytest.raises(ValueError, match="queries must be at least 1, got 0"):
        Magic(queries=0)
    refused("at least 1 row", [Magic()], rows=0)
    refused("no scorer can say whether a picture shows cat", [Magic()], judges=[Reader(question="style")])
    refused("its groups to attack are target", [Magic()], group="neighbour")
    refused("shows cat in 0 of 10 pictures", [Magic()], lambda *_: "")
    nude = tuple(dataclasses.replace(r, asks="nudity") if r.role == "erase" else r for r in setup.suite.rows)
    nudity = {"suite": dataclasses.replace(setup.suite, rows=nude), "judges": [Reader(question="nudity")]}
    assert not refused("nudity is judged by detectors, .* and reader is none", [Magic()], **nudity).calls
    kept = dataclasses.replace(setup.suite, rows=tuple(r for r in setup.suite.rows if r.role == "keep"))
    refused("no row of a concept that must be gone", [Magic()], suite=kept)
    assert not (tmp_path / "attacks.json").exists()


def test_a_base_that_cannot_draw_the_target_is_known_by_the_targets_own_rows(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Four rows cost four pictures: none of what is kept, and none for an attacker to learn from."""
    drawn = Planned(setup.model, lambda *_: "")
    monkeypatch.setattr(setup.model, "images", drawn)
    how = Campaign(rows=4, controls=16)
    with pytest.raises(ValueError, match=r"shows cat in 0 of 4 pictures that could be judged: there is nothing"):
        attack(setup.model, setup.edit, setup.suite, TWO, tmp_path, [Magic()], {}, campaign=how)
    assert len(drawn.calls) == 4


def test_a_concept_without_other_words_has_no_synonyms(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(setup.model, "images", Planned(setup.model, choose_plainly))
    with pytest.raises(ValueError, match="--synonym 'cat=kitty'"):
        attack(setup.model, setup.edit, setup.suite, TWO, tmp_path, [Synonyms()])
    aliases = {name: ConceptAliases((f"magic {name}",)) for name in ("cat", "tiger", "dog")}
    record = attack(setup.model, setup.edit, setup.suite, TWO, tmp_path, [Synonyms()], aliases)
    measure = record.find("synonyms")
    assert measure is not None and measure.after.value == 1
