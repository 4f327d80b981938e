"""`efface record`: the takedown record, and its check."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import efface
from efface.cli.app import main
from report_fixtures import evaluation, record


@dataclass(frozen=True)
class Opened:
    """A model of which only the fingerprint is asked."""

    name: str

    def fingerprint(self) -> dict[str, str]:
        return record().drawing.fingerprint if self.name == "made-up" else {"fp32": "0" * 32}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(efface, "load", Opened, raising=False)
    (tmp_path / "edit.safetensors").write_bytes(b"an edit")
    drawing = record().drawing.model_copy(update={"edit": hashlib.sha256(b"an edit").hexdigest()})
    return evaluation(tmp_path / "evaluation", drawing=drawing)


def test_it_writes_json_and_a_page_that_say_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit = str(folder.parent / "edit.safetensors")
    assert main(["record", str(folder), "--edit", edit, "--date", "2026-01-31", "--note", "<b>12</b>", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    data, page = json.loads(Path(told["record"]).read_text()), Path(told["page"]).read_text()
    assert data["digest"] == told["digest"] and data["edit_file"] == "../edit.safetensors"
    for words in (data["digest"], data["drawing"]["edit"], "2026-01-31", "&lt;b&gt;12&lt;/b&gt;", "98.0 % (96.4 %"):
        assert words in page
    for item in data["untested"]:
        assert item["what"].replace("'", "&#39;") in page


def test_check_exits_0_where_all_is_the_same_and_1_where_something_differs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", str(folder), "--edit", str(folder.parent / "edit.safetensors")]) == 0
    assert main(["record", str(folder), "--check"]) == 0
    capsys.readouterr()
    assert main(["record", str(folder), "--check", "--model", "other"]) == 1
    assert "differs      the base made-up" in capsys.readouterr().out
    (folder.parent / "edit.safetensors").write_bytes(b"another")
    assert main(["record", str(folder), "--check"]) == 1


def test_check_exits_3_where_a_hash_can_not_be_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(name: str) -> None:
        raise ValueError(f"no model {name!r}")

    assert main(["record", str(folder)]) == 0
    assert main(["record", str(folder), "--check", "--edit", str(folder.parent / "edit.safetensors")]) == 0
    assert main(["record", str(folder), "--check"]) == 3
    monkeypatch.setattr(efface, "load", nothing, raising=False)
    assert main(["record", str(folder), "--check", "--edit", str(folder.parent / "edit.safetensors")]) == 3
    assert "give its folder or hub id with --model" in capsys.readouterr().out
    assert main(["record", str(folder), "--check", "--model", "none"]) == 2


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--check"], "efface record"),
        (["--model", "x"], "goes with --check"),
        (["--check", "--note", "x"], "--check changes none"),
        (["--date", "today"], "is no date"),
    ],
)
def test_bad_input_exits_2(folder: Path, args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", str(folder), *args]) == 2
    assert says in capsys.readouterr().err
    assert not (folder / "takedown.html").exists()
