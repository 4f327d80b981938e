"""The file of a ledger of erasures: JSON that has a version and a digest and is validated."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from .report import Part, Share
from .sealed import parse_sealed, read_sealed

FORMAT_VERSION = 1


class LedgerEntry(Part):
    """An edit in the ledger."""

    edit: str
    """Its file, relative to the ledger's folder."""
    sha256: str
    targets: tuple[str, ...]
    method: str | None
    strength: float
    base: Share
    """The rate at which the untouched base draws its targets."""


class LedgerCheck(Part):
    """The rates at which targets were drawn with the first entries applied together."""

    after: int
    """The number of entries that were applied."""
    shown: tuple[Share, ...]
    """The rate of the targets of each of these entries."""


class Ledger(Part):
    """The file of a ledger."""

    format: Literal["efface-ledger"]
    version: int
    model: str
    fingerprint: dict[str, str]
    entries: tuple[LedgerEntry, ...]
    checks: tuple[LedgerCheck, ...]
    digest: str = ""
    """The sha256 of everything else in the file, as JSON with sorted keys; "" in files of earlier versions."""

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        counts = [(check.after, len(check.shown)) for check in self.checks]
        if not self.entries or counts != [(i, i) for i in range(1, len(self.entries) + 1)]:
            raise ValueError("a ledger has a check after every entry, with a rate for each entry until then")
        return self


def read_ledger(path: str | Path) -> Ledger:
    """Reads the file of a ledger.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has another version, was changed since it was written, is damaged, or is no ledger.
    """
    return read_sealed(Path(path), FORMAT_VERSION, partial(parse_sealed, Ledger), "begin a new one under another name")
