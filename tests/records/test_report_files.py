"""What a report, an audit, a ledger and an export may hold, and what is said of one that holds something else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from efface.files import hash_json
from efface.records.audit import AuditedWord
from efface.records.export import read_export
from efface.records.ledger import Ledger, read_ledger
from efface.records.report import (
    Drop,
    Estimate,
    Measure,
    Record,
    RowsFile,
    check_difference,
    check_headline,
    check_share,
    list_differences,
    read_report,
)
from efface.records.sealed import parse_sealed, write_sealed
from report_fixtures import build_share, measure, record

ALMOST = 1e-9
"""What rounding may add to a share."""


def estimate(value: float | None = 0.5, low: float = 0.5, high: float = 0.5) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=9, unscored=0)


def test_a_share_is_between_0_and_1_but_for_rounding() -> None:
    for whole in (estimate(), estimate(0, -ALMOST, 1 + ALMOST), estimate(None, 0, 1), estimate(1, 1, 1)):
        assert check_share(whole) == whole
    for wrong in (estimate(1 + 1e-6), estimate(-1e-6), estimate(None, -1), estimate(high=1.5)):
        with pytest.raises(ValueError, match="a share is between 0 and 1, got"):
            check_share(wrong)


def test_a_difference_of_shares_is_between_minus_1_and_1_but_for_rounding() -> None:
    assert check_difference(None) is None
    for low, value, high in ((-1 - ALMOST, 0, 1 + ALMOST), (-1, -1, -1), (1, 1, 1)):
        drop = Drop(value=value, low=low, high=high, clusters=1)
        assert check_difference(drop) == drop
    for low, value, high in ((-1.5, 0, 1), (0, 1 + 1e-6, 1), (0, 0, 1.5)):
        with pytest.raises(ValueError, match="a difference of shares is between -1 and 1, got"):
            check_difference(Drop(value=value, low=low, high=high, clusters=1))


@pytest.mark.parametrize("part", ["base", "edited", "drop"])
def test_a_measure_that_is_a_share_holds_shares_and_another_number_any(part: str) -> None:
    high = {"value": 26.0, "low": 25.0, "high": 27.0} | ({"clusters": 9} if part == "drop" else {"n": 9, "unscored": 0})
    fields = measure("clip", "target", build_share(1, 9), drop=(0, 0, 0)).model_dump() | {part: high}
    assert Measure.model_validate(fields | {"unit": "number"})
    with pytest.raises(ValidationError, match="between"):
        Measure.model_validate(fields | {"unit": "share"})


def test_the_name_of_a_headline_has_two_parts_or_a_threshold_as_the_third() -> None:
    for name in ("esr1/target", "ner/target/0.6", "ner/target/1", "ner/target/1e-05"):
        assert check_headline(name) == name
    for name in ("esr1", "ner/target/0.6/1", "ner/target/high", "ner/target/"):
        with pytest.raises(ValueError, match=f"metric/group or metric/group/threshold, got '{name}'"):
            check_headline(name)


def test_a_headline_is_the_measure_of_all_judges_else_that_of_its_first_judge() -> None:
    found = (
        measure("clip", "target", build_share(1, 9), judge="two"),
        measure("ner", "target", build_share(2, 9), judge="one", threshold=0.3),
        measure("ner", "target", build_share(3, 9), judge="one", threshold=0.6),
        measure("ner", "target", build_share(4, 9), judge="two", threshold=0.6),
        measure("ner", "other", build_share(5, 9), judge="three", threshold=0.6),
        measure("ner", "other", build_share(6, 9), threshold=0.6),
    )
    heads = ("ner/target", "ner/target/0.6", "ner/other/0.6", "ner/other/0.9", "esr1/target")
    made = record(found, headlines=heads)
    assert [round(9 * (m.edited.value or 0)) for m in made.list_headlines()] == [2, 3, 6]
    assert made.find("ner", "target", "two") == found[3]
    assert made.find("ner", "target", "one", 0.6) == found[2]
    assert made.find("ner", "target") is None and made.find("ner", "target", "one", 0.9) is None


def test_differences_are_told_by_their_dotted_names_but_for_those_that_are_skipped() -> None:
    before = {"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 4}, "skipped": 5, "same": [6]}
    now = {"b": {"c": 2, "d": 0}, "e": None, "g": 7, "skipped": 0, "same": [6]}
    assert list_differences(before, now, ["skipped"]) == [
        "a: 1 before, None now",
        "b.d: 3 before, 0 now",
        "e: {'f': 4} before, None now",
        "g: None before, 7 now",
    ]


def test_the_rescaling_of_guidance_is_written_where_it_was_used_alone() -> None:
    plain = record().drawing
    assert "guidance_rescale" not in plain.model_dump() and plain.model_dump()["steps"] == 12
    still = plain.model_copy(update={"guidance": 0.0})
    assert still.model_dump()["guidance"] == 0
    assert plain.model_copy(update={"guidance_rescale": 0.7}).model_dump()["guidance_rescale"] == 0.7


def test_a_report_carries_the_sha256_of_everything_else_in_it(tmp_path: Path) -> None:
    sealed = write_sealed(tmp_path / "report.json", record())
    data = json.loads((tmp_path / "report.json").read_text())
    said = data.pop("digest")
    assert hash_json(data) == said == sealed.digest and read_report(tmp_path) == sealed


def test_what_is_wrong_with_a_record_is_told_first_and_the_rest_counted() -> None:
    data = record().model_dump(mode="json")
    with pytest.raises(ValueError, match=r"^rows: Input should be a valid integer[^;]*$") as found:
        parse_sealed(Record, data | {"rows": "many"})
    assert "more" not in str(found.value)
    with pytest.raises(ValueError, match=r"^targets: .*, and 2 more$"):
        parse_sealed(Record, data | {"rows": "many", "targets": 3, "rule": 4})
    with pytest.raises(ValueError, match=r"^rows: .*, and 1 more$"):
        parse_sealed(Record, data | {"rows": "many", "rule": 4})
    with pytest.raises(ValueError, match=r"^it: "):
        parse_sealed(Record, [])
    data["digest"] = "0" * 64
    with pytest.raises(ValueError, match=f"changed after it was written: .* it says {'0' * 16}…"):
        parse_sealed(Record, data)


def test_a_report_without_a_digest_is_read_with_a_warning_at_the_place_that_reads_it(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(record().model_dump_json(exclude={"digest"}))
    with pytest.warns(UserWarning, match=r"report\.json has no digest, because an earlier version wrote it") as told:
        read_report(tmp_path)
    assert [each.filename for each in told] == [__file__]


def build_audited(*drops: Drop | None) -> AuditedWord:
    found = tuple(measure("clip", "x", build_share(1, 9), unit="number").model_copy(update={"drop": d}) for d in drops)
    return AuditedWord(
        word="x",
        part="worst",
        rank=1,
        damage=1.0,
        closeness=3,
        near=False,
        thing="",
        change=estimate(),
        measures=found,
        pictures=(),
    )


def test_a_word_is_lost_where_one_judge_is_certain_over_at_least_five_pictures() -> None:
    sure, unsure = (Drop(value=0.3, low=low, high=0.5, clusters=5) for low in (0.1, 0.0))
    few = Drop(value=0.3, low=0.1, high=0.5, clusters=4)
    assert build_audited(unsure, sure, None).lost is True and build_audited(unsure, few).lost is False
    assert build_audited(few, None).lost is None and build_audited().lost is None


def build_ledger(entries: int, checks: list[tuple[int, int]]) -> dict[str, Any]:
    rate = build_share(1, 9).model_dump()
    entry = {"edit": "e", "sha256": "0", "targets": ["cat"], "method": None, "strength": 1.0, "base": rate}
    return {
        "format": "efface-ledger",
        "version": 1,
        "model": "glyphs",
        "fingerprint": {},
        "entries": [entry] * entries,
        "checks": [{"after": after, "shown": [rate] * shown} for after, shown in checks],
    }


def test_a_ledger_has_a_check_after_every_entry_with_a_rate_for_each_until_then(tmp_path: Path) -> None:
    for entries in (1, 2, 3):
        whole = [(i + 1, i + 1) for i in range(entries)]
        assert Ledger.model_validate(build_ledger(entries, whole))
        for wrong in (whole[:-1], whole[1:], [*whole, (entries + 1, entries + 1)], [(i, i - 1) for i, _ in whole]):
            with pytest.raises(ValidationError, match="a ledger has a check after every entry"):
                Ledger.model_validate(build_ledger(entries, wrong))
    (tmp_path / "ledger.json").write_text(json.dumps(build_ledger(0, [])))
    with pytest.raises(ValueError, match=r"ledger\.json is damaged .*a check after every entry"):
        read_ledger(tmp_path / "ledger.json")


def test_of_an_export_what_its_file_says_is_read_and_nothing_added(tmp_path: Path) -> None:
    said = {"format": "lora", "target": ["cat"], "method": "ESD", "model": "m", "base": {"fp32": "0"}, "rank": 4}
    file = tmp_path / "efface.json"
    file.write_text(json.dumps(said))
    assert read_export(file) == said
    file.write_text(json.dumps({key: said[key] for key in said if key != "base"}))
    with pytest.raises(ValueError, match=re.escape(f"{file} is no record of an export") + ".*; export again$"):
        read_export(file)


def test_rows_are_those_of_the_report_unless_it_names_none(tmp_path: Path) -> None:
    from efface.records.basis import require_rows

    named, none = record(rows_file=RowsFile(lines=1, sha256="0" * 64)), record()
    require_rows(tmp_path, named)
    (tmp_path / "rows.parquet").write_bytes(b"rows")
    require_rows(tmp_path, none)
    with pytest.raises(ValueError, match=rf"not the file that report\.json was written with: sha256 {'0' * 16}…"):
        require_rows(tmp_path, named)
