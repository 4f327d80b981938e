"""Commands that write, killed at random moments: `python tests/kills.py --kills 200`.

Each command runs in a process of its own, forked when all is imported, and is killed (SIGKILL) after a random share of
the time that it takes undisturbed, or right before or after something gets its name. Afterwards nothing half written
may stand under a final name: the command is run again and must end as if nothing had happened, with the files of an
undisturbed run, compared by their contents, and no temporary left. Only what a clock says may differ.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final
from unittest import mock

import torch
from torch import Tensor

from contents import read_contents
from efface.api.takedown_plan import PROFILES
from efface.cli.app import main as efface
from efface.files import atomic
from efface.models.trajectory import Defaults
from efface.scorers import build_scorers
from efface.scorers.base import Better, Score
from efface.suites.spec import Row
from judging_fixtures import write_bundle

QUICK = ("--steps", "2")


@dataclass(frozen=True)
class Command:
    """A command that writes to OUT, and what it needs there first."""

    name: str
    args: Sequence[str]
    needs: tuple[str, ...] = ()
    """Commands whose results lie in OUT before it."""
    exports: str = ""
    """What an export writes, which it does not write again."""
    timed: bool = False
    """Whether its pages say how long things took."""


def list_commands(model: str, edit: str) -> dict[str, Command]:
    """Every command that writes; OUT stands for its folder."""
    of = ("--model", model, "--edit", edit)
    asked = (*of, "--suite", "glyphs-objects", "--out", "OUT/e")
    few = ("--group", "target", "--per-group", "4", "--scorer", "object-resnet")
    tried = ("--attack", "seeds", "--attack", "characters", "--budget", "3", "--rows", "4", "--controls", "2")
    erased = ("--target", "cat")
    found = (
        Command("erase", ("erase", "uce", "--model", model, *erased, "--out", "OUT/x.safetensors", "--overwrite")),
        Command("draw", ("draw", "--model", model, "--prompt", "a cat", "--count", "6", "--out", "OUT/d", *QUICK)),
        Command("export", ("export", *of, "--out", "OUT/m"), exports="m"),
        Command("lora", ("export", *of, "--format", "lora", "--out", "OUT/l.safetensors"), exports="l.safetensors"),
        Command("evaluate", ("evaluate", *asked, *few, *QUICK)),
        Command("attack", ("attack", *asked, *tried, *QUICK)),
        Command("audit", ("audit", *of, "--out", "OUT/a", "--worst", "2", "--controls", "1", "--count", "2", *QUICK)),
        Command("report", ("report", "OUT/e", "--out", "OUT/page.html"), ("evaluate", "attack"), timed=True),
        Command("record", ("record", "OUT/e", "--date", "2026-01-31"), ("evaluate", "attack")),
        Command(
            "takedown",
            ("takedown", "--model", model, *erased, "--profile", "quick", "--method", "uce", "--out", "OUT/t"),
            timed=True,
        ),
    )
    return {command.name: command for command in found}


@final
@dataclass(frozen=True)
class Coin:
    """A judge that sees what is asked for in every other picture, as the picture's own bytes decide."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "seen"
    unit: ClassVar[str] = "of 1"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = False
    question: str = "object"
    name: str = "object-coin"

    def identify(self) -> dict[str, str]:
        return {"scorer": "coin", "version": self.version, "asks": self.question}

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        seen = [int(image.long().sum()) % 2 == 0 for image in images]
        return [Score(float(s), (row.thing if s else "nothing",)) for s, row in zip(seen, rows, strict=True)]


def call(command: Command, out: Path) -> int:
    """Run a command in this process, silently; its exit code."""
    args = [arg.replace("OUT", str(out)) for arg in command.args]
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = efface(args)
    if code == 2 and command.exports and (out / command.exports).exists() and "exists" in told.getvalue():
        atomic.sweep(out)  # it was whole, and is not written again
        return 0
    if code not in VERDICTS:
        print(f"{command.name}: {told.getvalue()[-400:]}", file=sys.__stderr__, flush=True)
    return code


VERDICTS = (0, 1, 3)
"""Exit codes of a command that ended as it should, a takedown's verdict among them."""


@dataclass(frozen=True)
class Moment:
    """When a command is killed: after some seconds, or at one of the calls that put something in its place."""

    seconds: float = 0.0
    step: int | None = None
    """Which of these calls; it is killed before the even half of a number, and after the odd half."""

    def __str__(self) -> str:
        if self.step is None:
            return f"after {self.seconds:.3f} s"
        return f"{'after' if self.step % 2 else 'before'} call {self.step // 2} that renames, makes or removes"


PLACING = ("replace", "rename", "mkdir", "unlink", "rmdir", "link")
"""Functions of `os` by which files and folders come to stand, or go."""


@contextlib.contextmanager
def killed_at(moment: Moment | None, log: Path) -> Iterator[None]:
    """Within, the process kills itself at that call; without a moment, the number of calls is written to a file."""
    count = 0

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal count
            place, count = count, count + 1
            if moment and moment.step == 2 * place:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*args, **more)
            finally:
                if moment and moment.step == 2 * place + 1:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    with contextlib.ExitStack() as stack:
        for name in PLACING:
            stack.enter_context(mock.patch.object(os, name, wrap(getattr(os, name))))
        yield
    if moment is None:
        log.write_text(str(count))


def fork(command: Command, out: Path, moment: Moment | None = None) -> int:
    """Run a command in a child, killed at a moment; its exit code, negative where it was killed."""
    child = os.fork()
    if child == 0:
        atomic._sweep_once.cache_clear()  # a process of its own would have swept nothing yet
        with killed_at(moment, out.with_suffix(".calls")):
            code = call(command, out)
        os._exit(code)
    if moment and moment.step is None:
        time.sleep(moment.seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def prepare(commands: Mapping[str, Command], command: Command, out: Path) -> None:
    out.mkdir()
    for needed in command.needs:
        assert call(commands[needed], out) in VERDICTS, needed


def kill(commands: Mapping[str, Command], command: Command, top: Path, kills: int, seed: int = 0) -> list[str]:
    """What went wrong when a command was killed so many times; nothing, if all is well.

    Every other time it is killed at a random call that puts something in its place, else after a random time.
    """
    rng = random.Random(f"{seed}/{command.name}")
    whole = top / f"{command.name}-whole"
    prepare(commands, command, whole)
    began = time.monotonic()
    ends = fork(command, whole)
    assert ends in VERDICTS, command.name
    took, wanted = time.monotonic() - began, read_contents(whole, command.timed)
    wrong = []
    for n in range(kills):
        out = top / f"{command.name}-{n}"
        prepare(commands, command, out)
        steps = 2 * int(whole.with_suffix(".calls").read_text())
        moment = Moment(step=rng.randrange(steps)) if n % 2 == 0 and steps else Moment(rng.uniform(0, took))
        fork(command, out, moment)
        if (code := fork(command, out)) != ends:
            wrong.append(f"{command.name}, killed {moment}, then ended with {code}")
        elif (found := read_contents(out, command.timed)) != wanted:
            differ = sorted(name for name in {**found, **wanted} if found.get(name) != wanted.get(name))
            wrong.append(f"{command.name}, killed {moment}, then left others: {', '.join(differ[:4])}")
        shutil.rmtree(out)
    return wrong


@contextlib.contextmanager
def quick_models() -> Iterator[None]:
    """Two sampling steps by default, judges that see what is asked for now and then, and a small takedown."""
    real = build_scorers

    def build(bundle: Path | None, grounds: Any, only: Sequence[str] = (), labels: Any = None) -> list[Any]:
        return real(bundle, grounds, only, labels) if only else [Coin()]

    quick = dataclasses.replace(PROFILES["quick"], per_group=2, attacks=("seeds",), rows=2, controls=2, budget="2")
    quick = dataclasses.replace(quick, audit={"worst": 2, "controls": 1, "count": 2, "states": 1, "points": 1})
    with (
        mock.patch("efface.models.adapters.sd.Defaults", lambda **_: Defaults(steps=2, guidance=2.0)),
        mock.patch("efface.scorers.build_scorers", build),
        mock.patch.dict("efface.api.takedown_plan.PROFILES", {"quick": quick}),
    ):
        yield


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--kills", type=int, default=200, help="over all commands, of each an equal number, rounded up")
    flags.add_argument("--command", default="")
    flags.add_argument("--seed", type=int, default=0)
    given = flags.parse_args()
    torch.set_num_threads(1)
    began, wrong = time.monotonic(), []
    with tempfile.TemporaryDirectory() as top, quick_models():
        bundle = write_bundle(Path(top) / "bundle")
        edit = Path(top) / "edit"
        edit.mkdir()
        commands = list_commands(str(bundle / "model"), str(edit / "x.safetensors"))
        assert call(commands["erase"], edit) == 0
        chosen = [c for c in commands.values() if given.command in ("", c.name)]
        each = -(-given.kills // len(chosen))
        for command in chosen:
            wrong += kill(commands, command, Path(top), each, given.seed)
    print("\n".join(wrong))
    print(
        f"{each * len(chosen)} kills of {len(chosen)} commands in {time.monotonic() - began:.0f} s, {len(wrong)} faults"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
