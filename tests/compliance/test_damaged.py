"""Files of an evaluation that were cut short, changed, or hold what can't be: every reader notices."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from basis_fixtures import READERS, change_attacks
from efface.api.publishing import report as write_report
from efface.cli.app import main
from efface.compliance import takedown
from efface.evaluation.places import read_places
from efface.evaluation.rows_table import read_rows
from efface.files import hash_file
from efface.records import attack_files
from efface.records.report import RowsFile, read_report
from efface.records.sealed import write_sealed
from report_fixtures import write_evaluation


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
    made = write_evaluation(tmp_path / "e")
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
    made = write_evaluation(tmp_path / "e")
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
    made = write_evaluation(tmp_path / "e")
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
        attack_files.read_attacks(folder)


def test_a_report_that_was_changed_after_it_was_written_is_refused(tmp_path: Path) -> None:
    made = write_evaluation(tmp_path / "e")
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
        attack_files.read_attacks(folder)


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
