"""The runner of attacks: budgets, controls, floors, judges, and what counts as broken."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import pytest
import torch

from attack_plan import Plan, Planned, Reader
from efface.attacks import BASELINE
from efface.attacks.base import Attack, AttackContext, Candidate, Proposals, Threat
from efface.attacks.seeds import Seeds
from efface.attacks.synonyms import Synonyms
from efface.evaluation.evaluate import Settings
from efface.files import read_tensors
from efface.functional.rates import paired_difference
from efface.records.attack_files import read_attacks
from efface.robustness.campaign import attack
from efface.robustness.conditions import find_aliases
from efface.suites.spec import Row
from magic_word import Magic
from runner_fixtures import CONTROLS, ROWS, TWO, Setup, choose_plainly


@final
@dataclass(frozen=True, kw_only=True)
class Undo(Attack):
    """Stands in for one that changes weights: draws the rows as they are, or nothing that they ask for."""

    threat: ClassVar[Threat] = "weights"
    version: ClassVar[str] = "1"
    budget_fields: ClassVar[tuple[str, ...]] = ()
    applies_to_base: ClassVar[bool] = False
    queries: int = 1
    says: str = "{}"

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        yield [Candidate(self.says.replace("{}", row.prompt), row.seed) for row in rows]


def test_an_attack_with_its_controls_and_floor(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record, _ = setup.run(monkeypatch, choose_plainly, tmp_path, [Magic()])
    assert read_attacks(tmp_path) == record
    assert record.targets == ("cat",) and record.robust.value == 0.0
    conditions = {g.condition: g for g in record.conditions}
    assert (
        conditions["target"].untouched.value,
        conditions["target"].named.value,
        conditions["target"].before.value,
    ) == (
        1,
        0,
        0,
    )
    assert (
        conditions["control-kept"].untouched.value,
        conditions["control-kept"].named.value,
        conditions["control-kept"].before.value,
    ) == (1, 1, 0)
    assert (conditions["control-base"].named.value, conditions["control-base"].before.value) == (1, 0)
    assert set(conditions["control-kept"].concepts) == {"tiger", "dog"} and conditions["control-base"].concepts == (
        "cat",
    )
    for condition, rows in (("target", ROWS), ("control-kept", CONTROLS), ("control-base", CONTROLS)):
        measure = record.find("magic-word", condition)  # type: ignore[arg-type]
        assert measure is not None and measure.lift is not None
        assert (measure.before.value, measure.after.value, measure.baseline.value) == (0, 1, 0)
        assert (measure.lift.value, measure.lift.low) == (1, paired_difference(rows, 0, rows)[0])
        assert measure.curve == (0, 0, 0, 1, 1, 1)
        assert (measure.queries, measure.drawn, measure.after.n) == (3, 3 * rows, rows)
    assert not record.alarms, "all is broken: no budget would bring more"
    shown = [s for s in record.successes if s.condition == "target"]
    assert len(shown) == ROWS and {s.note for s in shown} == {"3 turns"} and {s.text for s in shown} == {"magic cat 3"}
    for success in shown:
        file = tmp_path / success.picture
        assert file.stem == hashlib.sha256(file.read_bytes()).hexdigest()[:32]
        assert success.answers == {"reader": "cat", "second": "cat"} and "cat" in success.prompt
    controls = [s for s in record.successes if s.condition != "target"]
    assert controls and all("thing" in s.prompt for s in controls)


def test_budgets_are_kept_to_the_picture(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record, drawn = setup.run(monkeypatch, choose_plainly, tmp_path, [Magic(queries=4, turn=9, rests=1)])
    measure = record.find("magic-word")
    assert measure is not None and (measure.after.value, measure.drawn, measure.queries) == (0, 3 * ROWS, 3)
    said = [text for text, _, edited in drawn.calls if text.startswith("gibberish") and edited]
    assert sorted(set(said)) == ["gibberish 2", "gibberish 3", "gibberish 4"]
    baseline = record.find(BASELINE)
    assert baseline is not None and baseline.settings["queries"] == 4 and baseline.drawn == 4 * ROWS
    pictures = sum(t.drawn for t in record.measures)
    named = 3 * 2 * ROWS
    assert len(drawn.calls) <= pictures + named + 8 * CONTROLS + 100


def test_rows_that_show_it_anyway_are_not_attacked(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [r for r in setup.suite.rows if r.group == "target"][:ROWS]
    leaks = {r.seed for r in rows[:3]}

    def plan(text: str, seed: int, edited: bool) -> str:
        return choose_plainly(text, seed, edited and seed not in leaks)

    record, _ = setup.run(monkeypatch, plan, tmp_path, [Magic(turn=1)])
    measure = record.find("magic-word")
    assert measure is not None and measure.before.value == pytest.approx(0.3) and measure.after.value == 1
    assert measure.drawn == 7 and measure.curve[:2] == (pytest.approx(0.3), 1)
    assert record.robust.value == 0
    missed, _ = setup.run(monkeypatch, plan, tmp_path / "other", [Magic(turn=9)])
    measure = missed.find("magic-word")
    assert (
        measure is not None and measure.after.value == pytest.approx(0.3) and missed.robust.value == pytest.approx(0.7)
    )


def test_a_success_must_convince_every_judge(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    judges = (Reader(), Reader(name="second", blind_to=9))
    record, _ = setup.run(monkeypatch, choose_plainly, tmp_path, [Magic()], judges=judges)
    assert [t.after.value for t in record.measures if t.attack != BASELINE] == [0, 0, 0]
    assert not record.successes and record.robust.value == 1


def test_a_picture_that_cannot_be_judged_leaves_the_row_open(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    judges = (Reader(fails_on=7),)
    record, _ = setup.run(monkeypatch, choose_plainly, tmp_path, [Magic(turn=9)], judges=judges)
    measure = record.find("magic-word")
    assert measure is not None and (measure.after.value, measure.after.n, measure.after.unscored) == (None, 0, ROWS)
    assert measure.unscored == ROWS and record.robust.value is None
    assert "too many pictures unscored" in [a.name for a in record.alarms]
    found, _ = setup.run(monkeypatch, choose_plainly, tmp_path, [Magic(turn=4)], judges=judges)
    measure = found.find("magic-word")
    assert measure is not None and measure.after.value == 1 and found.robust.value == 0


def test_kept_concepts_that_the_base_never_shows_are_no_control(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no(*names: str) -> Plan:
        return lambda text, seed, edited: "" if (s := choose_plainly(text, seed, edited)) in names else s

    record, _ = setup.run(monkeypatch, no("tiger"), tmp_path / "a", [Magic()])
    assert [g.concepts for g in record.conditions if g.condition == "control-kept"] == [("dog",)]
    record, _ = setup.run(monkeypatch, no("tiger", "dog"), tmp_path / "b", [Magic()])
    assert (
        "control-kept" not in [g.condition for g in record.conditions]
        and record.find("magic-word", "control-kept") is None
    )
    assert "no kept concept to compare with" in [a.name for a in record.alarms]


def test_pictures_to_learn_from_are_drawn_for_attacks_that_learn_from_them(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each of three concepts costs 25; an attack that reads none of them finds the same without."""
    how: dict[str, Any] = {"attacks": [Seeds(queries=2)]}
    record, drawn = setup.run(monkeypatch, choose_plainly, tmp_path / "few", **how)
    monkeypatch.setattr(Seeds, "learns_from_images", True)
    again, more = setup.run(monkeypatch, choose_plainly, tmp_path / "many", **how)
    assert len(more.calls) - len(drawn.calls) == 3 * 25
    assert record.conditions == again.conditions and record.find("seeds") is not None
    assert [m.after for m in record.measures] == [m.after for m in again.measures]


def test_a_kept_concept_that_the_base_shows_from_other_seeds_alone_is_a_control(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = {row.seed for row in setup.suite.rows}

    def seldom(text: str, seed: int, edited: bool) -> str:
        shown = choose_plainly(text, seed, edited)
        return "" if shown == "tiger" and seed in own else shown

    record, _ = setup.run(monkeypatch, seldom, tmp_path, [Seeds(queries=2)])
    assert [g.concepts for g in record.conditions if g.condition == "control-kept"] == [("tiger", "dog")]


def test_the_bases_controls_are_the_same_at_every_strength(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(setup.model, "images", Planned(setup.model, choose_plainly))
    found = []
    for strength in (1.0, 0.5):
        how, out, store = Settings(strength=strength), tmp_path / str(strength), tmp_path / "attacks"
        aliases = find_aliases(setup.known)
        attack(setup.model, setup.edit, setup.suite, TWO, out, [Magic()], aliases, how, store=store)
        batches = [file.name for file in store.glob("*/*.json")]
        found.append([len([n for n in batches if n.startswith(condition)]) for condition in ("control-base", "target")])
    assert found[0][0] == found[1][0] and found[0][1] < found[1][1]
    record = read_attacks(tmp_path / "0.5")
    assert record is not None and not record.interrupted and (tmp_path / "0.5" / record.successes[0].picture).is_file()


def test_the_worst_case_attacks_survivors_only(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def plan(text: str, seed: int, edited: bool) -> str:
        return choose_plainly(text, seed, edited and not ("catlet" in text and seed % 2 == 0))

    attacks = [Synonyms(queries=2), Magic(turn=1)]
    record, _ = setup.run(monkeypatch, plan, tmp_path, attacks, worst_case=True)
    first, second = record.find("synonyms"), record.find("magic-word")
    assert first is not None and second is not None and first.after.value not in (0, 1, None)
    broken = round(first.after.value * ROWS)
    assert (second.after.n, second.after.value, second.worst_case) == (ROWS - broken, 1, True)
    base = record.find("magic-word", "control-base")
    assert base is not None and base.after.n == CONTROLS and record.robust.value == 0


def test_embeddings_and_states_are_drawn_and_kept(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record, drawn = setup.run(monkeypatch, choose_plainly, tmp_path, [Magic(tensors=True, turn=1)])
    assert any(
        since == 1 and torch.equal(start, torch.full_like(start, 2.0))
        for start, since in drawn.starts
        if isinstance(start, torch.Tensor)
    )
    success = next(s for s in record.successes if s.attack == "magic-word")
    kept, meta = read_tensors(tmp_path / success.tensors)
    assert kept["embedding"].tolist() == [[1.0] * 3] * 2 and kept["start"].shape == (4, 8, 8) and meta == {"since": 1}


@pytest.mark.parametrize("ruins", [False, True])
def test_an_attack_that_only_undoes_is_asked_for_kept_concepts_by_name(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ruins: bool
) -> None:
    record, _ = setup.run(monkeypatch, choose_plainly, tmp_path, [Undo(says="nothing" if ruins else "{}")])
    measure = record.find("test-runner")
    assert measure is not None and record.find("test-runner", "control-kept") is None
    assert measure.intact is not None and (measure.intact.value, measure.intact.n) == (1 - ruins, CONTROLS)
    assert ("an attack ruins the model" in [a.name for a in record.alarms]) == ruins
