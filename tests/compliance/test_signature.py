"""Signatures of records, against OpenSSH's own ssh-keygen, and against one that does not answer as it should."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from efface.compliance.signature import check_signature, describe_key, set_aside, sign
from efface.compliance.takedown import Takedown, build_takedown
from efface.files import hash_bytes

needs_tool = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not on this machine")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path / "alice")


@pytest.fixture
def takedown(folder: Path) -> Takedown:
    return build_takedown(folder)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """What is signed: any file will do."""
    file = tmp_path / "takedown.json"
    file.write_bytes(b"a record")
    return file


def make_key(place: Path) -> Path:
    flags = ["-q", "-t", "ed25519", "-N", "", "-C", f"{place.name}@example.org", "-f", str(place)]
    subprocess.run(["ssh-keygen", *flags], check=True)
    return place


def allow(key: Path, names: str, place: Path) -> Path:
    place.write_text(f"{names} {key.with_suffix('.pub').read_text()}")
    return place


def put_before(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Puts another ssh-keygen before the machine's own."""
    tool = folder / "bin" / "ssh-keygen"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")


def ask(file: Path, takedown: Takedown, signers: Path | None = None) -> tuple[str, str]:
    found = check_signature(file, takedown, signers)
    assert found.what == "the signature"
    return found.outcome, found.says


@needs_tool
def test_a_key_is_described_in_the_words_of_ssh_keygen(key: Path, tmp_path: Path) -> None:
    says = subprocess.run(["ssh-keygen", "-l", "-f", str(key)], capture_output=True, text=True, check=True).stdout
    assert describe_key(key) == says.rstrip("\n") and describe_key(key.with_suffix(".pub")) == describe_key(key)
    with pytest.raises(ValueError, match="there is no key"):
        describe_key(tmp_path / "none")
    (tmp_path / "text").write_text("no key")
    with pytest.raises(ValueError, match=r"text is no SSH key: .*ssh-keygen -t ed25519 -f FILE"):
        describe_key(tmp_path / "text")


@needs_tool
def test_a_signature_is_valid_for_ssh_keygen(key: Path, file: Path, tmp_path: Path) -> None:
    signature, signers = sign(file, key), allow(key, "alice", tmp_path / "signers")
    assert signature == tmp_path / "takedown.json.sig"
    flags = ["-Y", "verify", "-n", "efface", "-f", str(signers), "-I", "alice", "-s", str(signature)]
    subprocess.run(["ssh-keygen", *flags], input=b"a record", capture_output=True, check=True)


@needs_tool
def test_the_outcome_says_whose_signature_it_is(key: Path, file: Path, takedown: Takedown, tmp_path: Path) -> None:
    sign(file, key)
    _, fingerprint, *_ = describe_key(key).split()
    assert ask(file, takedown) == ("same", f"by ED25519 key {fingerprint}; whose key it is, --signers FILE says")
    named = takedown.model_copy(update={"signer": describe_key(key)})
    assert ask(file, named)[0] == "same"
    signers = allow(key, "al,alice@example.org", tmp_path / "signers")
    assert ask(file, named, signers) == ("same", f"by al, with ED25519 key {fingerprint}")
    allow(make_key(tmp_path / "bob"), "bob", signers)
    assert ask(file, named, signers) == ("differs", f"by ED25519 key {fingerprint}, which {signers} does not list")


@needs_tool
def test_a_key_that_is_allowed_for_another_purpose_is_not_allowed_here(
    key: Path, file: Path, takedown: Takedown, tmp_path: Path
) -> None:
    """An allowed signer can be restricted to the signatures of git, for example."""
    sign(file, key)
    signers = allow(key, 'alice namespaces="git"', tmp_path / "signers")
    assert ask(file, takedown, signers)[0] == "differs"
    allow(key, 'alice namespaces="git,efface"', signers)
    assert ask(file, takedown, signers)[0] == "same"


@needs_tool
def test_a_signature_of_another_file_or_by_another_key_than_the_record_names_differs(
    key: Path, file: Path, takedown: Takedown, tmp_path: Path
) -> None:
    sign(file, key)
    other = describe_key(make_key(tmp_path / "bob"))
    outcome, says = ask(file, takedown.model_copy(update={"signer": other}))
    assert outcome == "differs" and says.endswith(f"the record names {other}")
    file.write_bytes(b"another record")
    outcome, says = ask(file, takedown)
    assert outcome == "differs" and says.startswith("it is not of this record: ")


def test_a_record_without_a_signature_is_unsigned_unless_it_names_a_signer_or_signers_are_given(
    file: Path, takedown: Takedown, tmp_path: Path
) -> None:
    (tmp_path / "signers").write_text("")
    assert ask(file, takedown)[0] == "unsigned"
    assert ask(file, takedown, tmp_path / "signers")[0] == "differs"
    assert ask(file, takedown.model_copy(update={"signer": "256 SHA256:x"}))[0] == "differs"
    with pytest.raises(ValueError, match="there is no file"):
        check_signature(file, takedown, tmp_path / "none")


def test_without_ssh_keygen_nothing_is_signed_and_nothing_checked(
    file: Path, takedown: Takedown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "takedown.json.sig").write_bytes(b"a signature")
    for act in (lambda: describe_key(file), lambda: sign(file, file)):
        with pytest.raises(ValueError, match="ssh-keygen is not installed"):
            act()
    outcome, says = ask(file, takedown)
    assert outcome == "not checked" and "ssh-keygen is not installed" in says


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo half a signature; exit 1", "half a signature"),
        ("exit 0", "ssh-keygen ended with 0"),
        ("echo; echo 'wrong  passphrase' >&2; exit 255", "wrong passphrase"),
    ],
)
def test_what_ssh_keygen_did_not_sign_has_no_signature(
    script: str, says: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_before(monkeypatch, tmp_path, script)
    with pytest.raises(ValueError, match=rf"takedown\.json was not signed with {tmp_path / 'key'}: {says}$"):
        sign(file, tmp_path / "key")
    assert not (tmp_path / "takedown.json.sig").exists()


def test_a_key_that_ssh_keygen_does_not_name_is_called_a_key(
    file: Path, takedown: Takedown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "takedown.json.sig").write_bytes(b"a signature")
    put_before(monkeypatch, tmp_path, "echo Good")
    assert ask(file, takedown)[1].startswith("by a key; ")


def test_a_signed_record_is_set_aside_with_its_page_and_signature(file: Path, tmp_path: Path) -> None:
    signature, page = tmp_path / "takedown.json.sig", tmp_path / "takedown.html"
    assert set_aside(file, b"another") is None, "it is not signed"
    signature.write_bytes(b"a signature")
    assert set_aside(file, b"a record") is None, "nothing changes"
    name = f"takedown.{hash_bytes(b'a record')[:12]}"
    assert set_aside(file, b"another") == tmp_path / f"{name}.json", "it has no page"
    assert (tmp_path / f"{name}.json").read_bytes() == b"a record" and file.exists()
    assert (tmp_path / f"{name}.json.sig").read_bytes() == b"a signature" and not signature.exists()
    assert not (tmp_path / f"{name}.html").exists()
    signature.write_bytes(b"a signature")
    page.write_text("a page")
    set_aside(file, b"another")
    assert (tmp_path / f"{name}.html").read_text() == "a page"
    file.unlink()
    signature.write_bytes(b"a signature")
    assert set_aside(file, b"another") is None and signature.exists(), "there is no record"
