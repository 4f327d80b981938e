"""What a ledger of erasures leaves: its JSON file, versioned, with a digest, and validated."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from .report import Part, Share
from .sealed import parse_sealed, read_sealed

FORMAT_VERSION = 1


class LedgerEntry(Part):
    """An edit that was entered."""

    edit: str
    """Its file, from the folder of the ledger."""
    sha256: str
    targets: tuple[str, ...]
    method: str | None
    strength: float
    base: Share
    """How often the untouched base draws its targets."""


class LedgerCheck(Part):
    """How often the targets were drawn with the first entries applied together."""

    after: int
    """How many entries."""
    shown: tuple[Share, ...]
    """A rate for each of them."""


class Ledger(Part):
    """The file of a ledger."""

    format: Literal["efface-ledger"]
    version: int
    model: str
    fingerprint: dict[str, str]
    entries: tuple[LedgerEntry, ...]
    checks: tuple[LedgerCheck, ...]
    digest: str = ""
    """sha256 of everything else in the file, as JSON with sorted keys; "" in files of earlier versions."""

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        counts = [(check.after, len(check.shown)) for check in self.checks]
        if not self.entries or counts != [(i, i) for i in range(1, len(self.entries) + 1)]:
            raise ValueError("a ledger has a check after every entry, with a rate for each entry until then")
        return self


def read_ledger(path: str | Path) -> Ledger:
    """Read the file of a ledger.

    Raises:
        FileNotFoundError: there is none.
        ValueError: another version, changed since it was written, damaged, or something else.
    """
    return read_sealed(Path(path), FORMAT_VERSION, partial(parse_sealed, Ledger), "begin a new one under another name")
