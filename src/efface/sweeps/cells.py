"""Cells: pieces of work that are named by the hash of everything that determines their result, and their files.

A sweep's folder holds

- `cells/ID.json`: a finished cell with its result; it is written last, so a cell with this file is done;
- `costs/ID.json`: its seconds, and how often it was begun, which differ from run to run and are not part of the result;
- `edits/ID.safetensors`, `evaluations/ID/`, `images/`, `attacks/`, `audit/ID/`, `neurons/ID/`, `purify/ID/`: the
  cells' further files, for `efface report` and for people;
- `failed/KEY.txt`: the log of a job that failed; the next run tries it again;
- `locks/`: locks, so that only one process works on an edit at a time.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..files import hash_bytes, hash_json, read_json, read_toml, refusing, write_whole
from ..source import PACKAGE, dump

AGAIN = "remove it, and run the sweep again"
Kind = Literal["erase", "evaluate", "attack", "audit", "neurons", "purify"]
_DRAWING = ("concept.py", "functional", "models", "guidance", "edits")
_JUDGING = ("suites", "scorers", "evaluation", "api/case.py", "api/resources.py", "sweeps/summaries.py")
ROOMS: Mapping[Kind, tuple[str, ...]] = {
    "erase": (*_DRAWING, "training", "methods", "suites/world.py"),
    "evaluate": (*_DRAWING, *_JUDGING, "api/evaluating.py"),
    "attack": (*_DRAWING, *_JUDGING, "training", "attacks", "robustness", "api/attacking.py"),
    "audit": (*_DRAWING, *_JUDGING, "diagnostics", "api/auditing.py"),
    "neurons": (*_DRAWING, *_JUDGING, "diagnostics", "api/diagnosing.py"),
    "purify": (*_DRAWING, *_JUDGING, "diagnostics", "api/evaluating.py"),
}
"""The parts of the program that determine the result of each kind of cell."""
IDLE = ("api", "catalog", "files", "origin", "planning", "plurals", "records", "reporting", "source")
"""Packages and modules that these parts also import: they find, read, write, plan and show, and change no result."""


@dataclass(frozen=True)
class Cell:
    """One piece of work: its kind, and everything that determines its result."""

    kind: Kind
    decided_by: Mapping[str, Any]
    name: str = ""
    """Its name, where `decided_by` was dropped to save memory, as in the driver, which has all cells at once."""

    @property
    def id(self) -> str:
        """The name of the cell's files."""
        return self.name or hash_json({"kind": self.kind, "code": digest_code(self.kind), **self.decided_by})[:20]

    def reduce_to_name(self) -> Cell:
        """The same cell without `decided_by`, which its result file holds as well."""
        return Cell(self.kind, {}, self.id)


@functools.cache
def digest_code(kind: Kind) -> str:
    """A hash of the source code for a kind of cell, and of the tables beside it, without comments and docstrings."""
    files = [file for room in ROOMS[kind] for file in _list_sources(PACKAGE / room)]
    return hash_bytes("\n".join(f"{file.relative_to(PACKAGE)} {_dump(file)}" for file in files).encode())


def _list_sources(place: Path) -> Sequence[Path]:
    return [place] if place.is_file() else sorted([*place.rglob("*.py"), *place.rglob("*.toml")])


def _dump(file: Path) -> str:
    """The file's syntax tree without docstrings, or a table's values."""
    if file.suffix == ".toml":
        return repr(read_toml(file))
    return dump(file)


@dataclass(frozen=True)
class Store:
    """The files of a sweep."""

    folder: Path

    def locate_edit(self, id: str) -> Path:
        """The file of an edit."""
        return self.folder / "edits" / f"{id}.safetensors"

    def locate_evaluation(self, id: str) -> Path:
        """The folder of an evaluation, and of the attacks beside it."""
        return self.folder / "evaluations" / id

    @property
    def images(self) -> Path:
        """The folder of all evaluations' pictures, so that the base is drawn once."""
        return self.folder / "images"

    @property
    def attacks(self) -> Path:
        """The folder of all attacks' pictures, so that the untouched base is attacked once."""
        return self.folder / "attacks"

    def locate_diagnosis(self, kind: Kind, id: str) -> Path:
        """The folder of an audit, of an edit's neurons, or of a purification."""
        return self.folder / kind / id

    def locate_lock(self, id: str) -> Path:
        """The lock file of an edit, held by the process that works on one of its jobs: these share cells and files."""
        return self.folder / "locks" / f"{id}.lock"

    def locate_log(self, key: str) -> Path:
        """The log of a job that failed."""
        return self.folder / "failed" / f"{key}.txt"

    def read_error(self, key: str) -> str:
        """The error that ended a job in its last run; "" where none did."""
        log = self.locate_log(key)
        return log.read_text(encoding="utf-8").strip().rpartition("\n")[2] if log.is_file() else ""

    def write_log(self, key: str, name: str, error: str) -> None:
        """Writes the log of a job that failed: its name, and the error with where it was raised."""
        write_whole(self.locate_log(key), f"{name}\n\n{error}\n")

    def is_done(self, cell: Cell) -> bool:
        """Whether the cell has a result."""
        return self._locate_result(cell).is_file()

    def begin(self, cell: Cell) -> int:
        """Notes that the cell is begun, and returns how often it was until now; an attempt that is killed counts."""
        earlier = self.read_cost(cell).get("attempts", 0) if self._locate_cost(cell).is_file() else 0
        attempts = 1 + int(earlier)
        self._write_cost(cell, {"attempts": attempts})
        return attempts

    def finish(self, cell: Cell, result: Mapping[str, Any], cost: Mapping[str, float]) -> None:
        """Writes a cell's result. The cost is written first, so that a finished cell has both.

        Raises:
            ValueError: the result has NaN or infinite numbers, which nothing could read again.
        """
        self._write_cost(cell, cost)
        whole = {"kind": cell.kind, "decided_by": dict(cell.decided_by), "result": dict(result)}
        text = json.dumps(whole, sort_keys=True, indent=1, allow_nan=False)
        write_whole(self._locate_result(cell), text + "\n")

    def read_result(self, cell: Cell) -> Mapping[str, Any]:
        """The result of a finished cell; raises FileNotFoundError where it is not finished."""
        return self._read(cell, "result")

    def read_decided_by(self, cell: Cell) -> Mapping[str, Any]:
        """Everything that determined the result of a finished cell."""
        return self._read(cell, "decided_by")

    def read_cost(self, cell: Cell) -> Mapping[str, float]:
        """The seconds of a finished cell, and how often it was begun; of one that is begun only the latter."""
        found = read_json(file := self._locate_cost(cell), AGAIN)
        with refusing(file, "damaged", AGAIN):
            return {str(name): float(value) for name, value in dict(found).items()}

    def _write_cost(self, cell: Cell, cost: Mapping[str, float]) -> None:
        write_whole(self._locate_cost(cell), json.dumps(dict(cost), sort_keys=True) + "\n")

    def _read(self, cell: Cell, part: str) -> Mapping[str, Any]:
        found = read_json(file := self._locate_result(cell), AGAIN)
        if not isinstance(found, dict) or not isinstance(found.get(part), dict):
            raise ValueError(f"{file} is damaged (it has no {part}); {AGAIN}")
        return found[part]

    def _locate_result(self, cell: Cell) -> Path:
        return self.folder / "cells" / f"{cell.id}.json"

    def _locate_cost(self, cell: Cell) -> Path:
        return self.folder / "costs" / f"{cell.id}.json"


def to_plain(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Converts values through JSON, so that a tuple and a list give the same hash."""
    return json.loads(json.dumps(value, default=str))
