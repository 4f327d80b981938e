"""Signs takedown records with SSH keys and verifies them, by OpenSSH's ssh-keygen (its manual, section -Y).

A signature is written beside its file as FILE.sig, in OpenSSH's format (PROTOCOL.sshsig), with the signer's public key.
A file of allowed signers says whose key that is, in lines such as "alice@example.org ssh-ed25519 AAAA…". Without
efface, the same check is: ssh-keygen -Y verify -n efface -f SIGNERS -I alice@example.org -s FILE.sig < FILE.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..files import hash_bytes, write_whole
from .checking import Check
from .takedown import Takedown

NAMESPACE = "efface"
"""The signature's namespace: one made for another purpose, such as a git commit, is not valid here."""
WHAT = "the signature"


def find_signature(file: Path) -> Path:
    """The path of a file's signature."""
    return file.with_name(f"{file.name}.sig")


def describe_key(key: Path) -> str:
    """A key as `ssh-keygen -l` names it: bits, SHA256 fingerprint, comment and type.

    Args:
        key: a private key's file, or its public half where an agent holds the private one.

    Raises:
        ValueError: there is no such key, or ssh-keygen is not installed.
    """
    _require_tool()
    if not key.is_file():
        raise ValueError(f"there is no key {key}; `ssh-keygen -t ed25519 -f {key}` makes one")
    done = _run(["-l", "-f", str(key)])
    if done.returncode:
        raise ValueError(f"{key} is no SSH key: {_join_output(done)}; `ssh-keygen -t ed25519 -f FILE` makes one")
    return done.stdout.decode(errors="replace").strip()


def sign(file: Path, key: Path) -> Path:
    """Signs a file, and returns the signature's path. For a key with a passphrase, ssh-keygen asks on the terminal.

    Raises:
        ValueError: the key can't sign, or ssh-keygen is not installed.
    """
    _require_tool()
    done = _run(["-Y", "sign", "-n", NAMESPACE, "-f", str(key)], file.read_bytes())
    if done.returncode or not done.stdout:
        raise ValueError(f"{file} was not signed with {key}: {_join_output(done)}")
    return write_whole(find_signature(file), done.stdout)


def set_aside(file: Path, data: bytes) -> Path | None:
    """Moves a signed record aside, with its page and its signature, before other data is written in its place.

    The record takedown.json becomes takedown.DIGEST.json, where DIGEST begins its sha256; its signature stays valid.

    Args:
        file: the record's file.
        data: what will be written there. Nothing is moved where the file holds just that: its signature fits.

    Returns:
        The record's new path; None where there was no signed record, or it stays.
    """
    signature, page = find_signature(file), file.with_suffix(".html")
    if not file.is_file() or not signature.is_file() or (earlier := file.read_bytes()) == data:
        return None
    name = f"{file.stem}.{hash_bytes(earlier)[:12]}"
    aside = write_whole(file.with_name(f"{name}.json"), earlier)
    if page.is_file():
        write_whole(file.with_name(f"{name}.html"), page.read_bytes())
    signature.replace(find_signature(aside))
    return aside


def check_signature(file: Path, takedown: Takedown, signers: Path | None = None) -> Check:
    """Checks whether a record has a valid signature, and whose it is.

    Args:
        file: the record's file.
        takedown: the record.
        signers: a file of allowed signers; without it the result names the key, but not its owner.

    Raises:
        ValueError: there is no such file of signers.
    """
    if signers is not None and not signers.is_file():
        raise ValueError(f"there is no file {signers}; it holds a line for each signer: NAME ssh-ed25519 AAAA…")
    signature = find_signature(file)
    if not signature.is_file():
        if takedown.signer:
            says = f"the record says that {takedown.signer} signs it, and there is no {signature.name}"
            return Check(what=WHAT, outcome="differs", says=says)
        says = "the record is unsigned: whoever can write these files could have made it; --sign KEY signs a record"
        return Check(what=WHAT, outcome="unsigned" if signers is None else "differs", says=says)
    if shutil.which("ssh-keygen") is None:
        return Check(what=WHAT, outcome="not checked", says=MISSING)
    data = file.read_bytes()
    done = _run(["-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(signature)], data)
    if done.returncode:
        return Check(what=WHAT, outcome="differs", says=f"it is not of this record: {_join_output(done)}")
    key = _join_output(done).partition(" with ")[2] or "a key"
    if (fingerprint := _find_fingerprint(takedown.signer)) and fingerprint not in key.split():
        return Check(what=WHAT, outcome="differs", says=f"signed by {key}, the record names {takedown.signer}")
    if signers is None:
        return Check(what=WHAT, outcome="same", says=f"by {key}; whose key it is, --signers FILE says")
    return _check_signer(data, signature, signers, key)


def _check_signer(data: bytes, signature: Path, signers: Path, key: str) -> Check:
    found = _run(["-Y", "find-principals", "-s", str(signature), "-f", str(signers)], data)
    for name in found.stdout.decode(errors="replace").splitlines() if not found.returncode else ():
        flags = ["-Y", "verify", "-n", NAMESPACE, "-s", str(signature), "-f", str(signers), "-I", name]
        if not _run(flags, data).returncode:
            return Check(what=WHAT, outcome="same", says=f"by {name}, with {key}")
    return Check(what=WHAT, outcome="differs", says=f"by {key}, which {signers} does not list")


MISSING = (
    "ssh-keygen is not installed, which makes and verifies signatures; it comes with OpenSSH (package openssh-client)"
)


def _require_tool() -> None:
    if shutil.which("ssh-keygen") is None:
        raise ValueError(MISSING)


def _run(flags: Sequence[str], data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", *flags], input=data, capture_output=True, check=False)


def _join_output(done: subprocess.CompletedProcess[bytes]) -> str:
    """The output of ssh-keygen in one line."""
    text = (done.stderr or done.stdout).decode(errors="replace")
    return " ".join(text.split()) or f"ssh-keygen ended with {done.returncode}"


def _find_fingerprint(named: str) -> str:
    return next((word for word in named.split() if word.startswith("SHA256:")), "")
