"""What `record --check` says of files that are missing, altered or of an earlier version."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from efface.compliance import checking
from efface.compliance.takedown import Takedown, build_takedown, list_files, read_takedown
from efface.compliance.untested import Untested, list_untested
from efface.evaluation.images import digest
from efface.evaluation.rows_table import read_rows
from efface.records.attack_files import read_file
from efface.records.attacks import Condition, InterruptedAttack, RowResult
from efface.records.report import RowsFile, read_report
from efface.records.sealed import write_sealed
from efface.suites.spec import Row
from report_fixtures import record as report


def check(folder: Path, made: Takedown, what: str) -> tuple[str, str]:
    """The outcome of one check, and what it says."""
    return {c.what: (c.outcome, c.says) for c in checking.check_hashes(folder, made, None, None)}[what]


def list_attack_pictures(folder: Path) -> list[Path]:
    record = read_file(folder)
    assert record
    return sorted(folder / each.picture for each in record.successes)


def test_the_pictures_of_attacks_are_checked_one_by_one(folder: Path) -> None:
    made = build_takedown(folder)
    assert check(folder, made, "pictures of attacks") == ("same", "all 2 are whole")
    first, second = list_attack_pictures(folder)
    whole = second.read_bytes()
    second.write_bytes(whole[:-1])
    says = f"1 of 2 are missing or altered, first {second.relative_to(folder)}"
    assert check(folder, made, "pictures of attacks") == ("differs", says)
    first.unlink()
    says = f"2 of 2 are missing or altered, first {first.relative_to(folder)}"
    assert check(folder, made, "pictures of attacks") == ("differs", says)


def test_a_success_whose_picture_was_not_kept_has_none_to_check(folder: Path) -> None:
    record = read_file(folder)
    assert record
    one, other = record.successes
    without = record.model_copy(update={"successes": (one, other.model_copy(update={"picture": ""}))})
    write_sealed(folder / "attacks.json", without)
    assert check(folder, build_takedown(folder), "pictures of attacks") == ("same", "the only one is whole")


def test_the_pictures_of_an_evaluation_are_counted(folder: Path) -> None:
    made = build_takedown(folder)
    assert check(folder, made, "pictures") == ("same", "all 24 are whole")
    picture = min((folder / "images").rglob("*.png"))
    picture.unlink()
    outcome, says = check(folder, made, "pictures")
    assert outcome == "differs" and says.startswith("1 of 24 are missing or altered, first ")
    assert picture.name in says


def test_prompts_are_checked_by_the_columns_that_the_file_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier version's rows lack later columns, and its digest is of those that it had."""
    lines = [{name: value for name, value in line.items() if name != "guidance"} for line in read_rows(folder)]
    columns = [field.name for field in dataclasses.fields(Row) if field.name != "guidance"]
    drawn = [{name: line[name] for name in columns} for line in lines if line["variant"] == "base"]
    made = build_takedown(folder).model_copy(update={"rows_digest": digest(drawn)})
    monkeypatch.setattr(checking, "read_rows", lambda _: lines)
    assert check(folder, made, "prompts, seeds and questions")[0] == "same"
    other = [line | ({"prompt": "another"} if line["variant"] == "base" else {}) for line in lines]
    monkeypatch.setattr(checking, "read_rows", lambda _: other)
    assert check(folder, made, "prompts, seeds and questions")[0] == "differs"
    monkeypatch.setattr(checking, "read_rows", lambda _: [])
    assert check(folder, made, "prompts, seeds and questions")[0] == "differs"


def test_it_says_which_edit_is_missing(folder: Path) -> None:
    unnamed = build_takedown(folder)
    outcome = ("not checked", "the record does not name its file; give it with --edit")
    assert check(folder, unnamed, "the edit") == outcome
    named = unnamed.model_copy(update={"edit_file": "../gone.safetensors"})
    outcome = ("not checked", f"there is no {folder / '../gone.safetensors'}; give it with --edit")
    assert check(folder, named, "the edit") == outcome


def test_a_record_needs_the_rows_that_its_report_names(folder: Path) -> None:
    made = read_report(folder).model_copy(update={"rows_file": RowsFile(lines=24, sha256="0" * 64)})
    write_sealed(folder / "report.json", made)
    (folder / "rows.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no rows.parquet, which report.json needs; run the evaluation"):
        build_takedown(folder)


def test_an_attack_that_was_interrupted_on_a_control_is_not_one_on_the_target(folder: Path) -> None:
    record = read_file(folder)
    assert record
    results = (RowResult(row="target/cat/0", broken=True, queries=1),)
    begun: tuple[tuple[str, Condition], ...] = (("seeds", "target"), ("merge", "control-base"))
    stopped = [
        InterruptedAttack(attack=attack, condition=condition, version="1", settings={}, rows=4, row_results=results)
        for attack, condition in begun
    ]
    write_sealed(folder / "attacks.json", record.model_copy(update={"interrupted": tuple(stopped)}))
    whats = [each.what for each in build_takedown(folder).untested]
    assert "attack seeds to its end" in whats and "attack merge to its end" not in whats


def test_a_file_with_a_digest_is_not_listed_as_one_without(folder: Path) -> None:
    assert not any("was changed after it was written" in each.what for each in build_takedown(folder).untested)


def test_the_rescaling_of_guidance_is_named_only_where_it_was_used(folder: Path) -> None:
    plain = report()
    rescaled = plain.drawing.model_copy(update={"guidance_rescale": 0.7})
    assert "guidance other than 3;" in _say(list_untested(plain))
    assert "guidance other than 3, rescaled by 0.7;" in _say(list_untested(report(drawing=rescaled)))


def _say(untested: Sequence[Untested]) -> str:
    return " | ".join(each.what for each in untested)


def test_the_files_of_a_record_are_named_once(folder: Path) -> None:
    names = list_files(folder)
    assert sorted(names) == sorted(set(names)) and {"report.json", "rows.parquet", "attacks.json"} <= set(names)


def test_a_suite_that_is_not_ours_has_no_other_groups_to_name(folder: Path) -> None:
    assert not any("other groups of" in each.what for each in build_takedown(folder).untested)


def test_a_record_of_the_earlier_version_is_digested_by_the_fields_in_its_file(folder: Path) -> None:
    """Such a file lacks what was added later, and its digest is of what it holds."""
    data = json.loads(build_takedown(folder).model_dump_json(exclude={"digest", "page", "signer"})) | {"version": 1}
    text = json.dumps(data, sort_keys=True, ensure_ascii=False)
    (folder / "takedown.json").write_text(json.dumps(data | {"digest": hashlib.sha256(text.encode()).hexdigest()}))
    assert check(folder, read_takedown(folder / "takedown.json"), "the record itself")[0] == "same"


def test_the_page_of_a_record_is_checked_where_the_record_names_one(folder: Path) -> None:
    made = build_takedown(folder)
    assert "takedown.html" not in {c.what for c in checking.check_hashes(folder, made, None, None)}
    shown = made.model_copy(update={"page": hashlib.sha256(b"a page").hexdigest()})
    assert check(folder, shown, "takedown.html") == ("differs", f"{shown.page[:16]}… was recorded; it is not there now")
    (folder / "takedown.html").write_bytes(b"a page")
    assert check(folder, shown, "takedown.html") == ("same", f"{shown.page[:16]}…")
    (folder / "takedown.html").write_bytes(b"another page")
    assert check(folder, shown, "takedown.html")[0] == "differs"
