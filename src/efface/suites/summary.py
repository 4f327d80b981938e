"""What was made of a list: which rows ask for what, which are left out and why, and which columns were not read."""

from collections.abc import Sequence
from dataclasses import dataclass

from .entries import LeftOut, count_lines

SHOWN = 5


@dataclass(frozen=True)
class ListSummary:
    """How a list was read."""

    file: str
    rows: int
    """Rows of the file."""
    said_by: str
    """What says what a row asks for."""
    asked: tuple[tuple[str, int], ...]
    """What rows ask for, and how many of them are drawn."""
    left_out: tuple[LeftOut, ...] = ()
    unread: tuple[str, ...] = ()
    """Columns that were not read."""
    remarks: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The summary for a person, a line a fact."""
        asked = "; ".join(f"{count} {what}" for what, count in self.asked)
        out = [f"{self.file}: {self.rows} rows, of which is drawn, {self.said_by}: {asked}"]
        for why, lines in count_lines(self.left_out).items():
            out.append(f"left out: {_count(lines)}: {why}")
        if self.unread:
            out.append(f"columns not read: {', '.join(self.unread)}")
        return [*out, *self.remarks]


def _count(lines: Sequence[int]) -> str:
    shown = ", ".join(map(str, lines[:SHOWN]))
    more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return f"1 row (line {shown})" if len(lines) == 1 else f"{len(lines)} rows (lines {shown}{more})"
