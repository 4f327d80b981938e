"""Which mistakes in what decides records would no test notice?  `python tests/mutants.py --seconds 1500`.

The tests are collected once and run once, to learn which functions each of them calls. Then one small change after
another (`mutations`) is made in a child process, by exchanging the code of a function, and the tests that call it are
run there, the quick ones first, until one fails: then the change is killed. Changes that no test notices are listed.
They are drawn by chance (seeded), so that a piece of the work is a sample of the whole.
"""

from __future__ import annotations

import argparse
import gc
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from mutations import Mutant, list_mutants

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src" / "efface"
DECIDING = (
    *("records", "compliance", "evaluation/judging.py", "evaluation/metrics.py", "evaluation/estimates.py"),
    *("evaluation/alarms.py", "evaluation/trial.py", "evaluation/rows_table.py", "evaluation/places.py"),
    *("evaluation/images.py", "evaluation/evaluate.py", "functional/rates.py", "edits/integrity.py"),
    *("robustness/merging.py", "robustness/results.py"),
)
"""What decides what a record says."""
TESTS = (
    *("functional/test_rates.py", "compliance", "evaluation", "edits/test_integrity.py", "robustness"),
    *("cli/test_record.py", "cli/test_verify.py", "cli/test_evaluate_cli.py", "cli/test_attack.py"),
    *("report/test_verdict.py", "report/test_report.py", "interchange/test_ledger.py"),
    *("diagnostics/test_audit.py", "suites/test_listed.py"),
)
"""The tests of that."""
Key = tuple[str, str]
"""A function, by its file and qualified name."""


@dataclass
class Run:
    """What one run of the tests told: for each test the functions that it called, and the seconds it took."""

    called: dict[str, set[Key]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


class Recorder:
    """A plugin that notes which functions of the package run in each test, and in each fixture that it asks for."""

    def __init__(self) -> None:
        self._stack: list[set[Key]] = [set()]
        self._fixtures: dict[int, set[Key]] = {}

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(SOURCE)):
            self._stack[-1].add(_key(frame.f_code))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        self._stack.append(set())
        yield
        self._fixtures.setdefault(id(fixturedef), set()).update(self._stack.pop())

    def run(self, items: Sequence[pytest.Item]) -> Run:
        found = Run()
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        for item, following in zip(items, [*items[1:], None], strict=True):
            self._stack, began = [set()], time.monotonic()
            if any(report.failed for report in runtestprotocol(item, nextitem=following, log=False)):
                found.failed.append(item.nodeid)
            found.seconds[item.nodeid] = time.monotonic() - began
            defs = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009 - pytest's, and not public
            held = [self._fixtures.get(id(each), set()) for some in defs for each in some]
            found.called[item.nodeid] = self._stack[0].union(*held)
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        return found


def _key(code: CodeType) -> Key:
    return code.co_filename, code.co_qualname


@dataclass
class Mutating:
    """A plugin that, in the place of running the collected tests, runs mutants."""

    files: Sequence[Path]
    budget: float
    """Seconds of this machine's processor, at most."""
    seed: int
    slowest: float
    """Seconds of a test, above which it is left out."""
    recorder: Recorder
    ended: Counter[str] = field(default_factory=Counter)
    living: list[Mutant] = field(default_factory=list)
    total: int = 0

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = list(session.items)
        told = in_child(lambda: self.recorder.run(items), 3600)
        assert told is not None, "the tests did not end"
        assert not told.failed, f"tests fail as they are: {told.failed[:3]}"
        quick = [item for item in items if told.seconds[item.nodeid] <= self.slowest]
        quick.sort(key=lambda item: told.seconds[item.nodeid])
        left = len(items) - len(quick)
        print(f"{len(quick)} tests; {left} take over {self.slowest:g} s and are left out", file=sys.stderr)
        mutants = [mutant for file in self.files for mutant in list_mutants(file)]
        self.total = len(mutants)
        random.Random(self.seed).shuffle(mutants)
        functions = find_functions()
        for mutant in mutants:
            if used() > self.budget:
                break
            key = (str(mutant.file), mutant.function)
            chosen = [item for item in quick if key in told.called[item.nodeid]]
            limit = 20 + 5 * sum(told.seconds[item.nodeid] for item in chosen)
            outcome = self._examine(mutant, chosen, functions.get(key, []), limit)
            self.ended[outcome] += 1
            if outcome != "killed":
                self.living.append(mutant)
                place = mutant.file.relative_to(SOURCE)
                print(f"{outcome}: {place}:{mutant.line} {mutant.function}: {mutant.says}", file=sys.stderr, flush=True)
        return True

    def _examine(
        self, mutant: Mutant, items: Sequence[pytest.Item], functions: Sequence[FunctionType], limit: float
    ) -> str:
        """Whether some test fails under a change: "killed", "alive", or "not called" by any test."""
        if not items or not functions:
            return "not called"

        def fails() -> bool:
            for function in functions:
                function.__code__ = mutant.code
            for item, following in zip(items, [*items[1:], None], strict=True):
                if any(report.failed for report in runtestprotocol(item, nextitem=following, log=False)):
                    return True
            return False

        return "alive" if in_child(fails, limit) is False else "killed"  # whatever ends the process is noticed


def find_functions() -> dict[Key, list[FunctionType]]:
    """Every function of the package that is there now, whatever wraps it."""
    found: dict[Key, list[FunctionType]] = {}
    for each in gc.get_objects():
        if type(each) is FunctionType and each.__code__.co_filename.startswith(str(SOURCE)):
            found.setdefault(_key(each.__code__), []).append(each)
    return found


def in_child(work: Callable[[], Any], limit: float) -> Any:
    """What `work` returns in a silent child process; None where that dies or takes longer than the limit, in s."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(work(), pipe)
        os._exit(0)
    os.close(writing)
    ending = threading.Timer(limit, os.kill, (child, signal.SIGKILL))
    ending.start()
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    ending.cancel()
    os.waitpid(child, 0)
    return pickle.loads(told) if told else None


def used() -> float:
    """Seconds of the processor that this process and its children have had."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in both)


def list_files(names: Sequence[str]) -> list[Path]:
    """Files by their names within the package, folders standing for all of theirs."""
    places = [SOURCE / name for name in names]
    if missing := [place for place in places if not place.exists()]:
        raise SystemExit(f"there is no {missing[0]}")
    return [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]


def list_changed(since: str) -> list[str]:
    """The files of the package that differ from a commit."""
    told = subprocess.run(["git", "diff", "--name-only", since, "--", str(SOURCE)], capture_output=True, text=True)
    found = [HERE.parent / line for line in told.stdout.splitlines() if line.endswith(".py")]
    return [str(file.relative_to(SOURCE)) for file in found if file.is_file()]


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("files", nargs="*", help="within src/efface; by default those that decide records")
    flags.add_argument("--tests", nargs="*", default=TESTS, help="within tests")
    flags.add_argument("--since", default="", help="mutate the files that differ from this commit")
    flags.add_argument("--seconds", type=float, default=float("inf"), help="of the processor, at most")
    flags.add_argument("--slowest", type=float, default=10.0, help="seconds of a test, above which it is left out")
    flags.add_argument("--seed", type=int, default=0)
    given = flags.parse_args()
    files = list_files(list_changed(given.since) if given.since else given.files or DECIDING)
    recorder = Recorder()
    plugin = Mutating(files, given.seconds, given.seed, given.slowest, recorder)
    chosen = [str(HERE / name) for name in given.tests]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also of a process in the background: it then sums up
    options = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"]
    code = pytest.main([*options, *chosen], plugins=[plugin, recorder])
    n, killed = sum(plugin.ended.values()), plugin.ended["killed"]
    share = f" ({killed / n:.1%})" if n else ""
    print(f"{killed} of {n} mutants killed{share}, of {plugin.total} in {len(files)} files; {used():.0f} s")
    return int(code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) or bool(plugin.living))


if __name__ == "__main__":
    sys.exit(main())
