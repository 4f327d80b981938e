"""Commands that write, killed at random moments: `python tests/kills.py --kills 200`.

Each command runs in a process of its own, forked when all is imported, and is killed (SIGKILL) after a random share of
the time that it takes undisturbed. Afterwards nothing half written may stand under a final name: the command is run
again and must end as if nothing had happened, with the files of an undisturbed run and no temporary left.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch

from efface.cli.app import main as efface
from efface.models.trajectory import Defaults
from judging_fixtures import write_bundle

QUICK = ("--steps", "2")


@dataclass(frozen=True)
class Command:
    """A command that writes to OUT, and what it needs there first."""

    name: str
    args: Sequence[str]
    needs: tuple[str, ...] = ()
    """Commands whose results lie in OUT before it."""
    changes: tuple[str, ...] = ()
    """Ends of names of files that hold times, and differ from run to run."""


def list_commands(model: str, edit: str) -> dict[str, Command]:
    """Every command that writes; OUT stands for its folder."""
    asked = ("--model", model, "--edit", edit, "--suite", "glyphs-objects", "--out", "OUT/e")
    few = ("--group", "target", "--per-group", "4", "--scorer", "object-resnet")
    found = (
        Command("erase", ("erase", "uce", "--model", model, "--target", "cat", "--out", "OUT/x.safetensors")),
        Command("draw", ("draw", "--model", model, "--prompt", "a cat", "--count", "6", "--out", "OUT/d", *QUICK)),
        Command("export", ("export", "--model", model, "--edit", edit, "--out", "OUT/m")),
        Command("evaluate", ("evaluate", *asked, *few, *QUICK)),
        Command("report", ("report", "OUT/e", "--out", "OUT/page.html"), ("evaluate",)),
        Command("record", ("record", "OUT/e", "--date", "2026-01-31"), ("evaluate",)),
    )
    return {command.name: command for command in found}


def call(command: Command, out: Path) -> int:
    """Run a command in this process, silently; its exit code."""
    args = [arg.replace("OUT", str(out)) for arg in command.args]
    if command.name == "erase" and (out / "x.safetensors").exists():
        args.append("--overwrite")
    if command.name == "export":  # a folder that exists is whole, and refused
        shutil.rmtree(out / "m", ignore_errors=True)
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = efface(args)
    if code:
        print(f"{command.name}: {told.getvalue()[-400:]}", file=sys.__stderr__, flush=True)
    return code


def fork(command: Command, out: Path, seconds: float | None) -> int:
    """Run a command in a child, killed after so many seconds; its exit code, negative where it was killed."""
    child = os.fork()
    if child == 0:
        os._exit(call(command, out))
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def digest(folder: Path, changes: Sequence[str]) -> Mapping[str, str]:
    """sha256 of every file by its name, but of those that hold times only that they are there."""
    return {
        str(f.relative_to(folder)): ""
        if any(str(f.relative_to(folder)).find(end) >= 0 for end in (*changes, "protocol.json", "x.safetensors"))
        else hashlib.sha256(f.read_bytes().replace(str(folder).encode(), b"OUT")).hexdigest()
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


def prepare(commands: Mapping[str, Command], command: Command, out: Path) -> None:
    out.mkdir()
    for needed in command.needs:
        assert call(commands[needed], out) == 0


def kill(commands: Mapping[str, Command], command: Command, top: Path, kills: int, seed: int = 0) -> list[str]:
    """What went wrong when a command was killed so many times at random moments; nothing, if all is well."""
    rng = random.Random(f"{seed}/{command.name}")
    whole = top / f"{command.name}-whole"
    prepare(commands, command, whole)
    began = time.monotonic()
    assert fork(command, whole, None) == 0, command.name
    took, wanted = time.monotonic() - began, digest(whole, command.changes)
    wrong = []
    for n in range(kills):
        out = top / f"{command.name}-{n}"
        prepare(commands, command, out)
        moment = rng.uniform(0, took)
        fork(command, out, moment)
        if (code := fork(command, out, None)) != 0:
            wrong.append(f"{command.name}, killed after {moment:.3f} s, then ended with {code}")
        elif (found := digest(out, command.changes)) != wanted:
            differ = sorted(set(found.items()) ^ set(wanted.items()))
            wrong.append(f"{command.name}, killed after {moment:.3f} s, then left {differ[:4]}")
        shutil.rmtree(out)
    return wrong


@contextlib.contextmanager
def quick_models():
    """A folder's default of 50 sampling steps is more than a test has time for."""
    with mock.patch("efface.models.adapters.sd.Defaults", lambda **_: Defaults(steps=2, guidance=2.0)):
        yield


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--kills", type=int, default=200, help="over all commands")
    flags.add_argument("--command", default="")
    given = flags.parse_args()
    torch.set_num_threads(1)
    began, wrong = time.monotonic(), []
    with tempfile.TemporaryDirectory() as top, quick_models():
        bundle = write_bundle(Path(top) / "bundle")
        edit = Path(top) / "edit"
        edit.mkdir()
        commands = list_commands(str(bundle / "model"), str(edit / "x.safetensors"))
        assert call(commands["erase"], edit) == 0
        chosen = [c for c in commands.values() if given.command in c.name]
        for command in chosen:
            wrong += kill(commands, command, Path(top), -(-given.kills // len(chosen)))
    print("\n".join(wrong))
    print(f"{given.kills} kills of {len(chosen)} commands in {time.monotonic() - began:.0f} s, {len(wrong)} faults")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
