"""`efface record`: the takedown record, and its check."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

import efface
from efface.cli.app import main
from report_fixtures import record, write_evaluation


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
    return write_evaluation(tmp_path / "evaluation", drawing=drawing)


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
    assert "warning: the edit's file is not where it was evaluated" in capsys.readouterr().err
    assert main(["record", str(folder), "--check", "--edit", str(folder.parent / "edit.safetensors")]) == 0
    assert main(["record", str(folder), "--check"]) == 3
    monkeypatch.setattr(efface, "load", nothing, raising=False)
    assert main(["record", str(folder), "--check", "--edit", str(folder.parent / "edit.safetensors")]) == 3
    assert "give its folder or hub id with --model" in capsys.readouterr().out
    assert main(["record", str(folder), "--check", "--model", "glyphs"]) == 2


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


def test_a_record_without_edit_can_be_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Case 30: the edit is taken from where it lay when it was evaluated."""
    places = json.loads((folder / "protocol.json").read_text())
    (folder / "protocol.json").write_text(json.dumps(places | {"edit": "../edit.safetensors"}))
    assert main(["record", str(folder)]) == 0
    capsys.readouterr()
    assert main(["record", str(folder), "--check"]) == 0
    out = capsys.readouterr().out
    assert "same         the edit edit.safetensors" in out
    assert "unsigned     the signature: the record is unsigned: whoever can write these files" in out
    assert "nobody" in (folder / "takedown.html").read_text()


def write_keys(folder: Path, *names: str) -> list[Path]:
    for name in names:
        flags = ["-q", "-t", "ed25519", "-N", "", "-C", f"{name}@example.org", "-f", str(folder / name)]
        subprocess.run(["ssh-keygen", *flags], check=True)
    return [folder / name for name in names]


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH's ssh-keygen is not on this machine")
def test_a_signed_record_says_who_signed_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alice, mallory = write_keys(tmp_path, "alice", "mallory")
    edit = ["--edit", str(tmp_path / "edit.safetensors")]
    assert main(["record", str(folder), *edit, "--sign", str(alice)]) == 0
    assert "takedown.json.sig" in capsys.readouterr().out
    record = json.loads((folder / "takedown.json").read_text())
    assert "alice@example.org (ED25519)" in record["signer"]
    assert "alice@example.org (ED25519)" in (folder / "takedown.html").read_text()
    check = ["record", str(folder), "--check"]
    assert main(check) == 0
    assert "same         the signature: by ED25519 key SHA256:" in capsys.readouterr().out
    signers = tmp_path / "signers"
    signers.write_text(f"alice@example.org {(tmp_path / 'alice.pub').read_text()}")
    assert main([*check, "--signers", str(signers)]) == 0
    assert "the signature: by alice@example.org, with ED25519 key SHA256:" in capsys.readouterr().out
    # The same verdict without efface.
    flags = ["-Y", "verify", "-n", "efface", "-f", str(signers), "-I", "alice@example.org"]
    done = subprocess.run(
        ["ssh-keygen", *flags, "-s", str(folder / "takedown.json.sig")],
        input=(folder / "takedown.json").read_bytes(),
        capture_output=True,
    )
    assert done.returncode == 0
    signers.write_text(f"mallory@example.org {(tmp_path / 'mallory.pub').read_text()}")
    assert main([*check, "--signers", str(signers)]) == 1
    assert "does not list" in capsys.readouterr().out
    # Signed again by another key, over the same record: the record names the first.
    done = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", "efface", "-f", str(mallory)],
        input=(folder / "takedown.json").read_bytes(),
        capture_output=True,
        check=True,
    )
    (folder / "takedown.json.sig").write_bytes(done.stdout)
    assert main([*check, "--signers", str(signers)]) == 1
    assert "the record names 256 SHA256:" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH's ssh-keygen is not on this machine")
def test_a_signature_is_of_this_record_and_does_not_vanish(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (alice,) = write_keys(tmp_path, "alice")
    edit, check = ["--edit", str(tmp_path / "edit.safetensors")], ["record", str(folder), "--check"]
    assert main(["record", str(folder), *edit, "--sign", str(alice)]) == 0
    file, signature = folder / "takedown.json", folder / "takedown.json.sig"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"0.98", b"0.99"))
    assert main(check) == 1
    out = capsys.readouterr().out
    assert "differs      the record itself" in out and "differs      the signature: it is not of this record" in out
    file.write_bytes(whole)
    signature.write_bytes(b"nothing")
    assert main(check) == 1
    signature.unlink()
    assert main(check) == 1
    assert "alice@example.org (ED25519) signs it, and there is no takedown.json.sig" in capsys.readouterr().out
    # A new record without a key is unsigned; the signed one is kept beside it, and a warning says so.
    assert main(["record", str(folder), *edit, "--sign", str(alice)]) == 0
    signed = [(folder / f"takedown.{end}").read_bytes() for end in ("json", "json.sig", "html")]
    capsys.readouterr()
    assert main(["record", str(folder), *edit]) == 0
    (aside,) = folder.glob("takedown.*.json")
    told = capsys.readouterr().err
    assert f"warning: the earlier record was signed; it is kept, with its signature, as {aside}, and the new" in told
    kept = [aside.with_name(f"{aside.stem}.{end}").read_bytes() for end in ("json", "json.sig", "html")]
    assert kept == signed
    assert not signature.exists() and main(check) == 0
    # What says the same as before keeps the signature that somebody made with ssh-keygen.
    flags = ["-q", "-Y", "sign", "-n", "efface", "-f", str(alice), str(file)]
    subprocess.run(["ssh-keygen", *flags], check=True, stdin=subprocess.DEVNULL)
    outside = signature.read_bytes()
    assert main(["record", str(folder), *edit]) == 0
    assert signature.read_bytes() == outside and main(check) == 0
    assert len(list(folder.glob("takedown.*.json"))) == 1
    signature.unlink()
    signers = tmp_path / "signers"
    signers.write_text(f"alice@example.org {(tmp_path / 'alice.pub').read_text()}")
    assert main([*check, "--signers", str(signers)]) == 1


def test_signing_needs_a_key_and_ssh_keygen(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("no key")
    if shutil.which("ssh-keygen"):
        for key, says in (("none", "there is no key"), ("text", "is no SSH key")):
            assert main(["record", str(folder), "--sign", str(tmp_path / key)]) == 2
            assert says in capsys.readouterr().err
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert main(["record", str(folder), "--sign", str(tmp_path / "text")]) == 2
    assert "ssh-keygen is not installed" in capsys.readouterr().err
    assert not (folder / "takedown.json").exists()
    edit = ["--edit", str(tmp_path / "edit.safetensors")]
    assert main(["record", str(folder), *edit]) == 0
    (folder / "takedown.json.sig").write_bytes(b"a signature")
    assert main(["record", str(folder), "--check"]) == 3
    for flags, says in (
        (["--check", "--sign", "x"], "--check changes none"),
        (["--signers", "x"], "goes with --check"),
        (["--check", "--signers", str(tmp_path / "none")], "there is no file"),
    ):
        assert main(["record", str(folder), *flags]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("name", ["takedown.html", "protocol.json", "page.html", "rows.parquet", "report.json"])
def test_check_names_the_file_that_changed_whichever_it_is(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "page.html").write_text("a report")
    assert main(["record", str(folder), "--edit", str(folder.parent / "edit.safetensors")]) == 0
    assert main(["record", str(folder), "--check"]) == 0
    (folder / name).write_bytes((folder / name).read_bytes().replace(b"a", b"b", 1) + b" ")
    capsys.readouterr()
    assert main(["record", str(folder), "--check"]) == 1
    differ = [
        line.split(":")[0].split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if "differs" in line
    ]
    assert name in differ
