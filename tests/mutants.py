"""Which mistakes would no test notice?  `python tests/mutants.py functional methods --seconds 1500`.

The tests are collected once and run once, to learn which functions each of them calls. Then one small change after
another (`mutations`) is made in a child process, by exchanging the code of a function, and the tests that call it are
run there, the quick ones first, until one fails: then the change is killed. Changes that no test notices are listed.
They are drawn by chance (seeded), so that a piece of the work is a sample of the whole. What is mutated is a part of
the package (`PARTS`), or a few files: `python tests/mutants.py methods/spm.py --tests methods/test_spm.py`.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import _lru_cache_wrapper
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, TypeGuard

import pytest
from _pytest.runner import runtestprotocol
from _pytest.warnings import catch_warnings_for_item

from efface.functional.rates import wilson
from mutant_parts import PARTS
from mutations import Mutant, list_mutants

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src" / "efface"
Key = tuple[str, str]
"""A function, by its file and qualified name."""


@dataclass
class Run:
    """What one run of the tests told: for each test the functions that it called, and its seconds of the processor."""

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
            self._stack[-1].add(_find_key(frame.f_code))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        self._stack.append(set())
        yield
        self._fixtures.setdefault(id(fixturedef), set()).update(self._stack.pop())

    def run(self, items: Sequence[pytest.Item]) -> Run:
        found = Run()
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        cached = [each for each in gc.get_objects() if type(each) is _lru_cache_wrapper and _is_ours(each.__wrapped__)]
        for item, following in zip(items, [*items[1:], None], strict=True):
            for each in cached:
                each.cache_clear()  # a result of an earlier test would hide that this one calls the function
            self._stack, began = [set()], measure_used()
            if has_failed(item, following):
                found.failed.append(item.nodeid)
            found.seconds[item.nodeid] = measure_used() - began
            defs = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009 - pytest's, and not public
            held = [self._fixtures.get(id(each), set()) for some in defs for each in some]
            found.called[item.nodeid] = self._stack[0].union(*held)
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        return found


def has_failed(item: pytest.Item, following: pytest.Item | None) -> bool:
    """Runs a test, under the filters of warnings that it is marked with; returns whether it fails."""
    with catch_warnings_for_item(item.config, item.ihook, "runtest", item):
        return any(report.failed for report in runtestprotocol(item, nextitem=following, log=False))


def _find_key(code: CodeType) -> Key:
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
        told = run_in_child(lambda: self.recorder.run(items), 3600)
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
        gc.freeze()  # a child that collects garbage would otherwise copy every page that it shares with this process
        for mutant in mutants:
            if measure_used() > self.budget:
                break
            key = (str(mutant.file), mutant.function)
            chosen = [item for item in quick if key in told.called[item.nodeid]]
            limit = 5 + 5 * sum(told.seconds[item.nodeid] for item in chosen)
            outcome = self._examine(mutant, chosen, functions.get(key, []), limit)
            self.ended[outcome] += 1
            if outcome != "killed":
                self.living.append(mutant)
                place = mutant.file.relative_to(SOURCE)
                print(f"{outcome}: {place}:{mutant.line} {mutant.function}: {mutant.says}", file=sys.stderr, flush=True)
        return True

    def stop(self) -> None:
        """Ends the work with the change that is examined now; what was found until then is summed up."""
        self.budget = 0

    def _examine(
        self, mutant: Mutant, items: Sequence[pytest.Item], functions: Sequence[FunctionType], limit: float
    ) -> str:
        """Whether some test fails under a change: "killed", "alive", or "not called" by any test."""
        if not items or not functions:
            return "not called"

        def fails() -> bool:
            for function in functions:
                function.__code__ = mutant.code
            return any(has_failed(item, following) for item, following in zip(items, [*items[1:], None], strict=True))

        return "alive" if run_in_child(fails, limit) is False else "killed"  # whatever ends the process is noticed


def _is_ours(each: object) -> TypeGuard[FunctionType]:
    """Whether an object is a function of the package; what is no function is not touched, since it may load itself."""
    return type(each) is FunctionType and each.__code__.co_filename.startswith(str(SOURCE))


def find_functions() -> dict[Key, list[FunctionType]]:
    """Every function of the package that is there now, whatever wraps it."""
    found: dict[Key, list[FunctionType]] = {}
    for each in gc.get_objects():
        if _is_ours(each):
            found.setdefault(_find_key(each.__code__), []).append(each)
    return found


def run_in_child(work: Callable[[], Any], limit: float) -> Any:
    """What `work` returns in a silent child process; None where that dies or goes on beyond its limit.

    The limit is in seconds of the processor, since others may use it too; nothing may take twenty times as long.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit)))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(work(), pipe)
        os._exit(0)
    os.close(writing)
    ending = threading.Timer(20 * limit, os.kill, (child, signal.SIGKILL))
    ending.start()
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    ending.cancel()
    os.waitpid(child, 0)
    return pickle.loads(told) if told else None


def measure_used() -> float:
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
    named = f"{', '.join(PARTS)}, or files and folders within src/efface; by default all these parts"
    flags.add_argument("what", nargs="*", default=list(PARTS), help=named)
    flags.add_argument("--tests", nargs="*", help="within tests; by default those of the parts, or of all")
    flags.add_argument("--since", default="", help="mutate the files that differ from this commit")
    flags.add_argument("--seconds", type=float, default=float("inf"), help="of the processor, at most")
    flags.add_argument("--slowest", type=float, default=10.0, help="seconds of a test, above which it is left out")
    flags.add_argument("--seed", type=int, default=0)
    given = flags.parse_args()
    what = list_changed(given.since) if given.since else given.what
    files = list_files([file for name in what for file in (PARTS[name].files if name in PARTS else [name])])
    recorder = Recorder()
    plugin = Mutating(files, given.seconds, given.seed, given.slowest, recorder)
    parts = [PARTS[name] for name in what if name in PARTS] or list(PARTS.values())
    tests = given.tests or dict.fromkeys(test for part in parts for test in part.tests)
    chosen = [str(HERE / name.removeprefix("tests/")) for name in tests]
    signal.signal(signal.SIGINT, lambda *_: plugin.stop())
    options = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"]
    code = pytest.main([*options, *chosen], plugins=[plugin, recorder])
    n, killed = sum(plugin.ended.values()), plugin.ended["killed"]
    low, high = wilson(killed, n)
    share = f" ({killed / n:.1%}, 95 % interval {low:.1%} to {high:.1%})" if n else ""
    print(f"{killed} of {n} mutants killed{share}, of {plugin.total} in {len(files)} files; {measure_used():.0f} s")
    return int(code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) or bool(plugin.living))


if __name__ == "__main__":
    sys.exit(main())
