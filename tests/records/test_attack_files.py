"""The files of attacks: which are read, what interrupted attacks add, and what earlier versions wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from efface.records import attack_files
from efface.records.attacks import (
    AttackedRows,
    AttackRecord,
    Batch,
    Condition,
    PlannedAttack,
    RowResult,
    estimate_robust,
)
from efface.records.attacks_v1 import upgrade
from efface.records.basis import read_evaluation, read_results
from efface.records.sealed import write_sealed
from report_fixtures import build_share, write_attacks

BROKEN: dict[str, bool | None] = {"r/0": True, "r/1": False, "r/2": None, "r/3": False}


def begin(folder: Path, attack: str, condition: Condition, inputs: str = "x") -> PlannedAttack:
    """An attack that was stopped after four of nine rows."""
    rows = tuple(RowResult(row=row, broken=broken, queries=1) for row, broken in BROKEN.items())
    batch = Batch(attack=attack, condition=condition, inputs=inputs, row_results=rows, seconds=1.0)
    file = folder / "attacks" / attack / f"{condition}-0.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(batch.model_dump_json())
    return PlannedAttack(attack=attack, condition=condition, version="1", settings={}, inputs=(inputs,), rows=9)


def plan(folder: Path, *planned: PlannedAttack, **changes: Any) -> AttackRecord:
    fields = {"planned": planned, "worst": dict.fromkeys(BROKEN, False), **changes}
    return write_attacks(folder).model_copy(update=fields)


def test_rows_that_an_interrupted_attack_broke_count_in_the_worst_case(tmp_path: Path) -> None:
    record = plan(tmp_path, begin(tmp_path, "seeds", "target"))
    found = attack_files.add_interrupted(record, tmp_path / "attacks")
    assert found.worst == {"r/0": True, "r/1": False, "r/2": False, "r/3": False}
    assert found.robust.value == 3 / 4 and found.digest == "" and record.digest != ""
    assert found.alarms[-1].raised_when == "seeds (target) was stopped after 4 of 9 rows, 1 of which it broke"
    assert attack_files.list_interrupted_batches(tmp_path, found) == [tmp_path / "attacks" / "seeds" / "target-0.json"]


def test_what_an_interrupted_control_broke_says_nothing_of_the_target(tmp_path: Path) -> None:
    record = plan(tmp_path, begin(tmp_path, "seeds", "control-kept"))
    found = attack_files.add_interrupted(record, tmp_path / "attacks")
    assert len(found.interrupted) == 1 and not any(found.worst.values())


def test_the_batches_of_finished_attacks_are_not_those_of_interrupted_ones(tmp_path: Path) -> None:
    stopped, done = begin(tmp_path, "seeds", "target"), begin(tmp_path, "synonyms", "target", "y")
    elsewhere = begin(tmp_path, "synonyms", "control-base", "y")
    record = plan(tmp_path, stopped, done, elsewhere)
    measures = tuple(m.model_copy(update={"inputs": ("y",)}) for m in record.measures if m.attack == "synonyms")
    found = attack_files.add_interrupted(record.model_copy(update={"measures": measures}), tmp_path / "attacks")
    assert [(each.attack, each.condition) for each in found.interrupted] == [("seeds", "target")]
    assert [f.parent.name for f in attack_files.list_interrupted_batches(tmp_path, found)] == ["seeds"]


def test_pictures_of_plain_prompts_alone_are_no_attacks(tmp_path: Path) -> None:
    for folder in ("plain", "portraits", "reference-images"):
        (tmp_path / "attacks" / folder).mkdir(parents=True)
        (tmp_path / "attacks" / folder / "target-0.json").write_text("{}")
    assert attack_files.read_attacks(tmp_path) is None
    begin(tmp_path, "seeds", "target")
    with pytest.raises(ValueError, match=r"holds finished batches of attacks, but no attacks\.json"):
        attack_files.read_attacks(tmp_path)


def test_a_folder_may_hold_attacks_alone_but_no_evaluation_is_read_there(tmp_path: Path) -> None:
    attacks = write_attacks(tmp_path)
    found = read_results(tmp_path)
    assert found.evaluation is None and found.attacks == attacks
    with pytest.raises(FileNotFoundError, match=r"holds no report\.json"):
        read_evaluation(tmp_path)


def test_attacks_of_a_later_version_are_refused(tmp_path: Path) -> None:
    data = write_attacks(tmp_path).model_dump(mode="json")
    (tmp_path / "attacks.json").write_text(json.dumps({**data, "version": 3}))
    with pytest.raises(ValueError, match="is of version 3; this efface reads version 1 or 2"):
        attack_files.read_attacks(tmp_path)


def test_the_names_of_version_1_become_those_of_today() -> None:
    trial = {"where": "edited", "survivors": True, "floor": 1, "gain": 2, "attack": "seeds"}
    old = {"grounds": [{"where": "base"}], "trials": [trial, {**trial, "missing": "no gradient"}], "rule": "r"}
    now = {"condition": "target", "worst_case": True, "baseline": 1, "lift": 2, "attack": "seeds"}
    assert upgrade({**old, "successes": [{"where": "kept"}]}) == {
        "rule": "r",
        "conditions": [{"condition": "control-base"}],
        "measures": [now, {**now, "missing": "no gradient", "status": "refused"}],
        "successes": [{"condition": "control-kept"}],
    }


def test_damaged_parts_of_version_1_stay_and_are_refused(tmp_path: Path) -> None:
    assert upgrade({"trials": [3, None], "grounds": "damaged"}) == {"measures": [3, None]}
    (tmp_path / "attacks.json").write_text(json.dumps({"version": 1, "trials": [3]}))
    with pytest.raises(ValueError, match=r"attacks\.json is damaged"):
        attack_files.read_attacks(tmp_path)


def test_of_the_rows_that_are_known_those_that_nothing_broke_are_the_robust_ones() -> None:
    found = estimate_robust({"a": True, "b": False, "c": None, "d": False, "e": False})
    assert (found.value, found.n, found.unscored) == (3 / 4, 4, 1)
    assert (found.low, found.high) == (build_share(3, 4).low, build_share(3, 4).high)


def test_an_attack_has_the_rows_that_were_judged_and_those_that_were_not(tmp_path: Path) -> None:
    record = write_attacks(tmp_path)
    control = record.find("synonyms", "control-base")
    assert control is not None and (control.condition, control.after.value) == ("control-base", 19 / 20)
    assert record.find("seeds") is None and record.find("relearn", "control-base") is None
    assert control.model_copy(update={"after": build_share(2, 5, unscored=3)}).size == 8


def test_batches_of_attacks_that_the_record_does_not_name_are_refused(tmp_path: Path) -> None:
    """The record was removed, and other attacks wrote a new one: what was broken before is not known there."""
    write_attacks(tmp_path)
    begin(tmp_path, "synonyms", "target")
    assert attack_files.read_attacks(tmp_path) is not None, "its measure is in the record"
    begin(tmp_path, "prune", "target")
    with pytest.raises(ValueError, match=r"attacks that its attacks\.json does not name \(prune\)"):
        attack_files.read_attacks(tmp_path)
    assert attack_files.read_file(tmp_path) is not None, "the attack can be run again"
    whole = plan(tmp_path, begin(tmp_path, "prune", "target"))
    write_sealed(tmp_path / "attacks.json", whole)
    assert (found := attack_files.read_attacks(tmp_path)) and [each.attack for each in found.interrupted] == ["prune"]


def test_a_row_that_one_attack_left_out_is_not_known_unless_it_is_broken() -> None:
    facts = {"version": "1", "settings": {}, "seed": 0}
    attacked = [AttackedRows(attack="a", rows=tuple(BROKEN), **facts), AttackedRows(attack="b", rows=("r/3",), **facts)]
    assert estimate_robust(BROKEN) == build_share(2, 3, unscored=1)
    assert estimate_robust(BROKEN, attacked) == build_share(1, 2, unscored=2)
