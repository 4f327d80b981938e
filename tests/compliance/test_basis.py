"""One place decides what belongs together, and report, gate, record and whoever adds to a folder ask it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from efface.api.publishing import record as write_record
from efface.api.publishing import report as write_report
from efface.api.publishing import verify
from efface.cli.app import main
from efface.compliance import gate, takedown
from efface.compliance.rules import parse_rule
from efface.evaluation.alarms import warn_of_left_out
from efface.evaluation.places import read_places
from efface.evaluation.rows_table import read_rows
from efface.files import hash_file
from efface.records import attack_files
from efface.records.attacks import Batch, PlannedAttack, RowResult
from efface.records.basis import read_results
from efface.records.report import RowsFile, read_report
from efface.records.sealed import write_sealed
from report_fixtures import attacked, evaluation, record, share


def change_attacks(folder: Path, **changes: Any) -> None:
    """Rewrite `folder`/attacks.json as if it had been made otherwise; fields of the drawing are taken too."""
    made = attack_files.read_file(folder)
    assert made is not None
    drawing = {k: v for k, v in changes.items() if k in made.drawing.model_fields_set}
    rest = {k: v for k, v in changes.items() if k not in drawing}
    write_sealed(
        folder / "attacks.json",
        made.model_copy(update={"drawing": made.drawing.model_copy(update=drawing), **rest}),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = evaluation(tmp_path / "e")
    attacked(made)
    return made


READERS: dict[str, Callable[[Path], object]] = {
    "report": lambda f: write_report(f, f.parent / "page.html"),
    "verify": lambda f: verify(f, "esr1<0.9"),
    "record": lambda f: write_record(f),
}
OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "edit": ({"edit": "9" * 64}, f"edit with sha256 {'e' * 16}…, the attacks of {'9' * 16}…"),
    "base": ({"fingerprint": {"fp32": "9" * 32}}, f"fingerprint {'a' * 16}…, the attacks on {'9' * 16}…"),
    "strength": ({"strength": 0.5}, "strength 1.0 in the evaluation, 0.5 in the attacks"),
    "steps": ({"steps": 3}, "steps 12 in the evaluation, 3 in the attacks"),
    "guidance": ({"guidance": 1.0}, "guidance 3.0 in the evaluation, 1.0 in the attacks"),
    "suite": (
        {"suite": record().suite.model_copy(update={"version": "7"})},
        "suite made-up 1 in the evaluation, made-",
    ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", OTHER)
def test_attacks_of_another_basis_beside_an_evaluation_are_refused(case: str, reader: str, folder: Path) -> None:
    """Case 57: both hashes, or both settings, are in the sentence."""
    changes, says = OTHER[case]
    change_attacks(folder, **changes)
    with pytest.raises(ValueError, match="do not belong to the evaluation there") as found:
        READERS[reader](folder)
    assert says in str(found.value)
    assert not (folder / "takedown.json").exists() and not (folder.parent / "page.html").exists()


def test_one_cast_of_the_base_in_common_is_the_same_base(folder: Path) -> None:
    change_attacks(folder, fingerprint={"fp16": "b" * 32, "fp32": "9" * 32}, model="where it lies now")
    assert read_results(folder).attacks is not None


def stop(folder: Path, attack: str = "seeds") -> None:
    """An attack that was interrupted after two of twenty rows, of which it broke one."""
    rows = tuple(RowResult(row=f"target/cat/{i}", broken=i == 0, queries=1) for i in range(2))
    planned = PlannedAttack(attack=attack, condition="target", version="1", settings={}, inputs=("x",), rows=20)
    worst = {f"target/cat/{i}": False for i in range(20)}
    change_attacks(folder, planned=(planned,), worst=worst, robust=share(20, 20))
    (folder / "attacks" / attack).mkdir()
    batch = Batch(attack=attack, condition="target", inputs="x", row_results=rows, seconds=1.0)
    (folder / "attacks" / attack / "target-0.json").write_text(batch.model_dump_json())


def test_a_gate_on_attacks_does_not_pass_without_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cases 57 and 59."""
    made = evaluation(tmp_path / "e")
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
    change_attacks(folder, measures=(broken, *attacks.measures[1:]), robust=share(20, 20))
    (says,) = [f.says for f in verify(folder, "robust<0.1").findings]
    assert "attack synonyms ended in an error: its loss is NaN" in says


def test_batches_without_a_record_are_refused_by_every_reader(tmp_path: Path) -> None:
    """Case 59: an attack that was stopped before its first record."""
    made = evaluation(tmp_path / "e")
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


def seal_rows(folder: Path) -> None:
    """What an evaluation says of its rows, and its digest."""
    file = folder / "rows.parquet"
    lines = pq.read_metadata(file).num_rows
    write_sealed(
        folder / "report.json",
        read_report(folder).model_copy(update={"rows_file": RowsFile(lines=lines, sha256=hash_file(file))}),
    )


@pytest.mark.parametrize("reader", READERS)
def test_rows_that_were_cut_short_are_noticed(reader: str, tmp_path: Path) -> None:
    """Case 62: a whole parquet file with fewer lines, and half a file."""
    made = evaluation(tmp_path / "e")
    seal_rows(made)
    READERS[reader](made)
    table = pq.read_table(made / "rows.parquet")
    pq.write_table(table.slice(0, 20), made / "rows.parquet")
    with pytest.raises(
        ValueError, match=r"rows.parquet is not the file that report.json was written with: sha256 \w{16}… then"
    ):
        READERS[reader](made)
    data = (made / "rows.parquet").read_bytes()
    (made / "rows.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cut short or changed"):
        READERS[reader](made)


def test_rows_without_a_digest_must_be_whole_too(tmp_path: Path) -> None:
    """Case 66, on files of earlier versions: other columns, no lines of the edited model, an unknown role."""
    made = evaluation(tmp_path / "e")
    table = pq.read_table(made / "rows.parquet")
    half = table.slice(0, table.num_rows // 2)
    roles = pa.array(["stay"] * table.num_rows)
    other = table.set_column(table.column_names.index("role"), "role", roles)
    for found, says in (
        (pa.table({"a": [1]}), "lacks the columns id, prompt"),
        (half, "12 lines of the base and 0 under the edit"),
        (other, r"neither to erase nor to keep \(first: 'base', 'stay'\)"),
        (table.slice(0, 20), "12 lines of the base and 8 under the edit"),
    ):
        pq.write_table(found, made / "rows.parquet")
        with pytest.raises(ValueError, match=says):
            write_report(made, tmp_path / "page.html")
    (made / "rows.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"rows\.parquet is damaged"):
        read_rows(made)


@pytest.mark.parametrize("text", ["[]", "{}", '{"images": 3}', '{"images": "x", "edit": []}', "{", "[" * 100_000])
def test_a_protocol_that_does_not_say_where_pictures_lie_is_damaged(text: str, tmp_path: Path) -> None:
    """Case 66."""
    (tmp_path / "protocol.json").write_text(text)
    with pytest.raises(ValueError, match=r"protocol.json is damaged"):
        read_places(tmp_path)


def test_a_folder_without_a_protocol_is_no_evaluation(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no protocol.json; give the --out of an `efface evaluate`"):
        read_places(tmp_path)


def damage(folder: Path, change: Callable[[Any], object]) -> None:
    """Change a report that has no digest, as if it were of an earlier version."""
    data = json.loads((folder / "report.json").read_text())
    data.pop("digest")
    change(data)
    (folder / "report.json").write_text(json.dumps(data))


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "a share of 700 %": (lambda d: d["measures"][0]["edited"].update(value=7.0), "a share is between 0 and 1, got 7"),
    "a bound above 1": (lambda d: d["measures"][0]["base"].update(high=1.2), "a share is between 0 and 1, got 1.2"),
    "NaN": (lambda d: d["measures"][0]["edited"].update(value=float("nan")), "NaN is no number of JSON"),
    "infinite": (lambda d: d["measures"][2]["drop"].update(high=float("inf")), "Infinity is no number of JSON"),
    "a drop of 2": (lambda d: d["measures"][2]["drop"].update(value=2.0), "between -1 and 1, got 2"),
    "fewer than none": (lambda d: d["measures"][0]["edited"].update(n=-1), "greater than or equal to 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_shares_that_are_none_make_a_damaged_report(case: str, tmp_path: Path) -> None:
    """Case 62."""
    change, says = WRONG[case]
    made = evaluation(tmp_path / "e")
    damage(made, change)
    with pytest.raises(ValueError, match=f"report.json is damaged .*{says}"):
        read_report(made)


def test_shares_that_are_none_make_damaged_attacks(folder: Path) -> None:
    """Case 62."""
    data = json.loads((folder / "attacks.json").read_text())
    data.pop("digest")
    data["robust"]["value"] = 1.5
    (folder / "attacks.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"attacks\.json is damaged .*a share is between 0 and 1, got 1.5"):
        attack_files.read(folder)


def test_a_report_that_was_changed_after_it_was_written_is_refused(tmp_path: Path) -> None:
    made = evaluation(tmp_path / "e")
    seal_rows(made)
    digest = read_report(made).digest
    assert len(digest) == 64
    damage(made, lambda d: d["measures"][0]["edited"].update(value=0.99) or d.update(digest=digest))
    with pytest.raises(ValueError, match=r"report.json is damaged \(it was changed after it was written"):
        read_report(made)


def test_attacks_that_were_changed_after_they_were_written_are_refused(folder: Path) -> None:
    change_attacks(folder)
    data = json.loads((folder / "attacks.json").read_text())
    (folder / "attacks.json").write_text(json.dumps({**data, "worst": {}, "method": "UCE"}))
    with pytest.raises(ValueError, match="it was changed after it was written"):
        attack_files.read(folder)


def test_a_finding_that_pictures_cannot_decide_says_no_number_of_them(folder: Path) -> None:
    from efface.compliance.deciding import count_deciding

    stop(folder)
    evaluated = read_results(folder)
    assert evaluated.evaluation
    found = gate.verify(evaluated.evaluation, [parse_rule("robust<0.1")], attacks=evaluated.attacks)
    assert count_deciding(found.findings[0]) is None


def test_a_record_takes_the_edit_from_where_it_was_evaluated(tmp_path: Path) -> None:
    """Case 30, its part of the record; the commands' part is in tests/cli/test_record.py."""
    made = evaluation(tmp_path / "e")
    (tmp_path / "other.safetensors").write_bytes(b"another edit")
    (made / "protocol.json").write_text(json.dumps({"images": "images", "edit": "../other.safetensors"}))
    with pytest.raises(ValueError, match=f"is not the edit that was judged: .* evaluation was of {'e' * 16}…"):
        takedown.build_takedown(made)
    (tmp_path / "other.safetensors").unlink()
    assert takedown.build_takedown(made).edit_file == ""


def test_a_damaged_batch_of_an_interrupted_attack_is_told(folder: Path) -> None:
    """What it broke is lost, and that is said; the rate can't pass."""
    stop(folder)
    (folder / "attacks" / "seeds" / "target-0.json").write_text("{")
    found = read_results(folder).attacks
    assert found is not None and [each.damaged for each in found.interrupted] == [1]
    assert "1 files of what else it did are damaged" in found.alarms[-1].raised_when
    verdict = gate.verify(read_report(folder), [parse_rule("robust<0.5")], attacks=found)
    assert verdict.outcome == "unjudged"


@pytest.mark.parametrize("name", ["report.json", "attacks.json"])
def test_files_of_earlier_versions_say_once_that_they_have_no_digest(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads((folder / name).read_text())
    del data["digest"]
    (folder / name).write_text(json.dumps(data))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["record", str(folder)]) == 0
    assert capsys.readouterr().err.count(f"{name} has no digest, because an earlier version wrote it") == 1
    made = takedown.build_takedown(folder)
    assert f"whether {name} was changed after it was written" in [u.what for u in made.untested]


def test_the_gate_says_which_standard_attacks_were_not_made(folder: Path) -> None:
    """A weak attack alone says little of robustness."""
    found = verify(folder, "robust<0.1")
    assert found.remarks == (
        "of the standard attacks these were not made: seeds, ring-a-bell, unlearndiff, soft-prompt",
    )
    assert gate.verify(read_report(folder), [parse_rule("esr1<0.9")]).remarks == ()


def test_a_policy_speaks_of_all_kept_things_and_not_of_those_that_were_drawn(tmp_path: Path) -> None:
    """Drawing the groups alone that lose least does not make a gate pass."""
    left = warn_of_left_out({"neighbour": "near things", "unseen": "never seen"}, ["target", "unseen"])
    assert warn_of_left_out({"neighbour": "near things"}, ["target"]) == ()
    assert warn_of_left_out({"neighbour": "near things"}, ["target", "neighbour"]) == ()
    kept = [m for m in record().measures if m.group == "unseen"]
    whole, part = record(kept), record(kept, alarms=left)
    rule, own = parse_rule("psr1_drop>0.05"), parse_rule("psr1_drop@unseen>0.05")
    assert gate.verify(whole, (), [rule]).outcome == "holds"
    found = gate.verify(part, (), [rule])
    assert found.outcome == "unjudged" and "they were not drawn: near things" in found.findings[0].says
    assert gate.verify(part, (), [own]).outcome == "holds" and gate.verify(part, [rule]).outcome == "holds"


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
