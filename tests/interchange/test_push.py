"""`efface push` against a stand-in of the hub's HTTP interface."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import efface
from efface.cli.app import main
from efface.files import hash_file
from efface.reporting.wording import format_title
from hub_stand_in import Hub, serve
from lora_fixtures import build_dense, build_low_rank, is_same_change
from report_fixtures import record, write_evaluation
from tiny import tiny_model


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    with serve() as hub:
        yield hub


@pytest.fixture
def file(tmp_path: Path) -> Path:
    model = tiny_model()
    return efface.export(model, build_low_rank(model, "attn2"), tmp_path / "x.safetensors", format="kohya", pictures=0)


def test_nothing_is_sent_unless_asked(hub: Hub, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["push", str(file), "--to", "me/tiny", "--licence", "openrail++", "--endpoint", hub.endpoint]
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert hub.repositories == {} and "nothing was uploaded; --send uploads it" in out
    assert 'license: "openrail++"' in out and "# tiny without cat" in out and "Method: ESD" in out
    assert "which became **dog**" in out and "**Nothing was measured**" in out and "Recommended strength: 1" in out
    assert main([*asked, "--send", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    held = hub.repositories["me/tiny"]
    assert told["url"].endswith("/me/tiny/commit/1") and sorted(held) == ["README.md", "x.json", "x.safetensors"]
    assert held["x.safetensors"] == file.read_bytes() and held["README.md"].decode() == told["card"]
    assert hub.created[0].get("private") or hub.created[0].get("visibility") == "private"


def test_a_repository_that_exists_is_left_alone(hub: Hub, file: Path) -> None:
    hub.repositories["me/tiny"] = {"README.md": b"mine"}
    how: dict[str, Any] = {"licence": "mit", "endpoint": hub.endpoint, "send": True}
    with pytest.raises(FileExistsError, match="me/tiny exists already; name another, or add --existing"):
        efface.push(file, "me/tiny", **how)
    assert hub.repositories["me/tiny"] == {"README.md": b"mine"}
    efface.push(file, "me/tiny", existing=True, **how)
    assert hub.repositories["me/tiny"]["x.safetensors"] == file.read_bytes()
    hub.refuses = True
    with pytest.raises(OSError, match="the hub refuses the files of me/other"):
        efface.push(file, "me/other", **how)


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # huggingface_hub's own call of httpx
@pytest.mark.parametrize("parts", [1, 3], ids=["whole", "in parts"])
def test_a_large_file_goes_up_by_git_lfs(hub: Hub, tmp_path: Path, parts: int) -> None:
    large = tmp_path / "x.safetensors"
    large.write_bytes(random.Random(0).randbytes(11 << 20))
    about = {"format": "single-file", "target": ["cat"], "method": "ESD", "model": "tiny", "base": {}}
    (tmp_path / "x.json").write_text(json.dumps(about))
    how: dict[str, Any] = {"licence": "mit", "endpoint": hub.endpoint, "send": True}
    hub.parts = parts
    done = efface.push(large, "me/tiny", **how)
    held = hub.repositories["me/tiny"]
    assert held["x.safetensors"] == large.read_bytes() and held["README.md"].decode() == done.card
    assert [len(each) for each in hub.sent] == [-(-(11 << 20) // parts)] * (parts - 1) + [
        hub.compute_last_part(11 << 20)
    ]
    assert all(size < 100_000 for size in hub.commits)  # names and digests; what is large is not among it
    hub.loses = True
    with pytest.raises(OSError, match="the hub refuses the files of me/other"):
        efface.push(large, "me/other", **how)
    assert hub.repositories["me/other"] == {}


def test_folders_and_edits_are_sent_too(hub: Hub, tmp_path: Path) -> None:
    model = tiny_model()
    edit = build_low_rank(model, "attn2")
    folder = efface.export(model, edit, tmp_path / "out", pictures=0)
    done = efface.push(folder, "me/tiny", licence="mit")
    saved = hash_file(edit.save(tmp_path / "same.safetensors"))
    assert json.loads((folder / "efface.json").read_text())["edit_sha256"] == saved
    assert "unet/config.json" in done.files and "efface.json" in done.files and "README.md" not in done.files
    done = efface.push(edit.save(tmp_path / "e.safetensors"), "me/tiny", licence="mit")
    assert list(done.files) == ["e.safetensors"] and "format `edit`" in done.card and hub.repositories == {}


def test_the_card_says_what_was_measured_and_what_was_not(tmp_path: Path) -> None:
    seen = record()
    first = next(m for m in seen.measures if m.metric == "esr1" and m.judge == "all")
    told = first.model_copy(update={"title": "gone from top 1: the target"})
    seen = record(measures=tuple(told if m is first else m for m in seen.measures))
    folder = write_evaluation(tmp_path / "judged", measures=seen.measures)
    about = {"format": "kohya", "target": list(seen.targets), "method": seen.method, "model": "tiny"}
    about |= {"base": seen.drawing.fingerprint}
    (tmp_path / "x.safetensors").write_bytes(b"a file")
    (tmp_path / "x.json").write_text(json.dumps(about))
    card = efface.push(tmp_path / "x.safetensors", "me/tiny", licence="mit", evaluation=folder).card
    for m in (m for m in seen.measures if m.judge == "all" and m.unit == "share" and m.edited.value is not None):
        e = m.edited
        assert (
            f"| {format_title(m)} | {m.group} |" in card
            and f"{e.value:.1%} ({e.low:.1%} to {e.high:.1%}) | {e.n} |" in card
        )
    assert "no judge sees it: " in card and "gone from top" not in card
    assert f"Suite {seen.suite.name}" in card and "- attacks of any kind:" in card
    said = {"edit_sha256": seen.drawing.edit, "strength_in_file": seen.drawing.strength}
    (tmp_path / "x.json").write_text(json.dumps({**about, **said}))
    assert efface.push(tmp_path / "x.safetensors", "me/tiny", licence="mit", evaluation=folder).card == card
    for other, says in (
        ({"edit_sha256": "9" * 64}, f"judged another edit: its sha256 is {'e' * 16}…, and .* of {'9' * 16}…"),
        ({"strength_in_file": 0.5}, "judged the edit at strength 1, and what is handed on has it at 0.5"),
    ):
        (tmp_path / "x.json").write_text(json.dumps({**about, **said, **other}))
        with pytest.raises(ValueError, match=says):
            efface.push(tmp_path / "x.safetensors", "me/tiny", licence="mit", evaluation=folder)
    for other in ({"target": ["dog"]}, {"method": "another"}, {"base": {"fp32": "0"}}):
        (tmp_path / "x.json").write_text(json.dumps({**about, **other}))
        with pytest.raises(ValueError, match=r"which is not this erasure of .* or of another base"):
            efface.push(tmp_path / "x.safetensors", "me/tiny", licence="mit", evaluation=folder)


def test_what_cannot_be_pushed_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names no repository; OWNER/NAME"):
        efface.push(file, "tiny", licence="mit")
    with pytest.raises(ValueError, match="--licence is that of the base"):
        efface.push(file, "me/tiny", licence=" ")
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        efface.push(tmp_path / "none", "me/tiny", licence="mit")
    with pytest.raises(ValueError, match=r"holds no efface.json"):
        efface.push(tmp_path, "me/tiny", licence="mit")
    with pytest.raises(FileNotFoundError):
        efface.push(file, "me/tiny", licence="mit", evaluation=tmp_path)
    with pytest.raises(OSError, match="does not answer"):
        efface.push(file, "me/tiny", licence="mit", endpoint="http://127.0.0.1:9", send=True)


def test_of_a_reverted_folder_what_is_left_is_imported_exported_and_pushed(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "base")
    model = efface.load(str(tmp_path / "base"), "cpu")
    gone, stays = build_dense(model, "attn1"), build_dense(model, "attn2")
    efface.export(model, efface.merge(model, [gone, stays]), tmp_path / "both", pictures=0)
    done = efface.revert(model, str(tmp_path / "both"), gone, tmp_path / "rest")
    assert not done["exact"]
    with pytest.raises(ValueError, match=r"no efface.json, which says .*`efface revert` writes none.*`efface import`"):
        efface.push(tmp_path / "rest", "me/tiny", licence="mit")
    left = efface.import_edit(model, tmp_path / "rest", "cat")
    assert is_same_change(model, stays, left, 1e-4)
    efface.export(model, left, tmp_path / "again", pictures=0)
    assert "# base without cat" in efface.push(tmp_path / "again", "me/tiny", licence="mit").card
    efface.revert(model, str(tmp_path / "rest"), left, tmp_path / "back")
    assert efface.export(str(tmp_path / "back"), stays, tmp_path / "anew", pictures=0).is_dir()
    with pytest.raises(ValueError, match="changes nothing of"):
        efface.import_edit(model, tmp_path / "back", "cat")
