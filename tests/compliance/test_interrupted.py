"""Attacks that were interrupted or ended in an error: no gate on attacks passes on what they left."""

from __future__ import annotations

from pathlib import Path

import pytest

from basis_fixtures import READERS, change_attacks, stop
from efface.api.publishing import record as write_record
from efface.api.publishing import verify
from efface.cli.app import main
from efface.compliance import gate
from efface.compliance.rules import parse_rule
from efface.records import attack_files
from efface.records.attacks import Batch, RowResult
from efface.records.basis import read_results
from efface.records.report import read_report
from report_fixtures import build_share, write_evaluation


def test_a_gate_on_attacks_does_not_pass_without_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cases 57 and 59."""
    made = write_evaluation(tmp_path / "e")
    for rule in ("robust<0.1", "asr@seeds>0.9"):
        assert main(["verify", str(made), "--fail-on", rule]) == 2
        assert "no attack was made in this folder; `efface attack` makes some" in capsys.readouterr().err
    assert verify(made, policy="attacked").outcome != "holds"
    found = next(f for f in verify(made, policy="attacked").findings if f.metric == "robust")
    assert found.outcome == "unjudged" and "no attack was made" in found.says


def test_a_gate_on_attacks_does_not_pass_on_interrupted_ones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Case 59: the rule would hold over the rows that are known; one on what is not attacked holds, with a remark."""
    assert verify(folder, "robust<0.1").outcome == "holds"
    stop(folder)
    found = verify(folder, "robust<0.1")
    assert found.outcome == "unjudged" and found.exit_code == 3
    (says,) = [f.says for f in found.findings]
    assert "robust@attacks is 0.950" in says and "attack seeds was interrupted after 2 of 20 rows" in says
    assert verify(folder, "robust<0.999").outcome == "failed"
    assert verify(folder, "asr@synonyms>0.9").outcome == "holds"
    assert verify(folder, "asr@seeds>0.9").outcome == "unjudged"
    assert main(["verify", str(folder), "--fail-on", "esr1<0.9"]) == 0
    assert "remark: attack seeds was interrupted after 2 of 20 rows" in capsys.readouterr().out


def test_a_gate_on_attacks_does_not_pass_on_one_that_ended_in_an_error(folder: Path) -> None:
    attacks = attack_files.read_file(folder)
    assert attacks is not None
    broken = attacks.measures[0].model_copy(update={"status": "error", "missing": "its loss is NaN"})
    change_attacks(folder, measures=(broken, *attacks.measures[1:]), robust=build_share(20, 20))
    (says,) = [f.says for f in verify(folder, "robust<0.1").findings]
    assert "attack synonyms ended in an error: its loss is NaN" in says


def test_batches_without_a_record_are_refused_by_every_reader(tmp_path: Path) -> None:
    """Case 59: an attack that was stopped before its first record."""
    made = write_evaluation(tmp_path / "e")
    (made / "attacks" / "seeds").mkdir(parents=True)
    (made / "attacks" / "seeds" / "target-0.json").write_text("{}")
    for reader in READERS.values():
        with pytest.raises(ValueError, match=r"holds finished batches of attacks, but no attacks\.json"):
            reader(made)


def test_the_record_names_an_interrupted_attack_and_the_check_notices_when_its_rows_go(folder: Path) -> None:
    """Case 28."""
    stop(folder)
    made = write_record(folder)
    assert "attack seeds to its end" in [u.what for u in made.untested]
    beside = {"report.json", "rows.parquet", "attacks.json", "protocol.json"}
    assert set(made.files) == beside | {"attacks/seeds/target-0.json"}
    assert ("asr", "seeds") in {(m.metric, m.group) for m in made.rates}


def test_a_finding_that_pictures_cannot_decide_says_no_number_of_them(folder: Path) -> None:
    from efface.compliance.deciding import count_deciding

    stop(folder)
    evaluated = read_results(folder)
    assert evaluated.evaluation
    found = gate.verify(evaluated.evaluation, [parse_rule("robust<0.1")], attacks=evaluated.attacks)
    assert count_deciding(found.findings[0]) is None


def test_a_damaged_batch_of_an_interrupted_attack_is_told(folder: Path) -> None:
    """What it broke is lost, and that is said; the rate can't pass."""
    stop(folder)
    (folder / "attacks" / "seeds" / "target-0.json").write_text("{")
    found = read_results(folder).attacks
    assert found is not None and [each.damaged for each in found.interrupted] == [1]
    assert "1 file of what else it did is damaged" in found.alarms[-1].raised_when
    verdict = gate.verify(read_report(folder), [parse_rule("robust<0.5")], attacks=found)
    assert verdict.outcome == "unjudged"


def test_the_gate_says_which_standard_attacks_were_not_made(folder: Path) -> None:
    """A weak attack alone says little of robustness."""
    found = verify(folder, "robust<0.1")
    assert found.remarks == (
        "of the standard attacks these were not made: seeds, ring-a-bell, unlearndiff, soft-prompt",
    )
    assert gate.verify(read_report(folder), [parse_rule("esr1<0.9")]).remarks == ()


def test_of_an_interrupted_attack_its_own_batches_count_and_no_others(folder: Path) -> None:
    """Batches of other settings lie in the same folder; finished under one condition is not finished under another."""
    stop(folder)
    rows = tuple(RowResult(row=f"target/cat/{i}", broken=i < 4, queries=1) for i in range(2, 7))
    for n, inputs in ((1, "x"), (2, "of another seed")):
        batch = Batch(attack="seeds", condition="target", inputs=inputs, row_results=rows, seconds=1.0)
        (folder / "attacks" / "seeds" / f"target-{n}.json").write_text(batch.model_dump_json())
    found = read_results(folder).attacks
    assert found is not None and len(found.interrupted[0].row_results) == 7
    assert "stopped after 7 of 20 rows, 3 of which it broke" in found.alarms[-1].raised_when
    measures = tuple(m.model_copy(update={"inputs": ("x",)}) if m.attack == "blind" else m for m in found.measures)
    change_attacks(folder, measures=measures)  # finished on the target
    assert (done := read_results(folder).attacks) and done.interrupted == ()
    other = tuple(m.model_copy(update={"condition": "control-base"}) if m.attack == "blind" else m for m in measures)
    change_attacks(folder, measures=other)
    assert (still := read_results(folder).attacks) and len(still.interrupted) == 1
