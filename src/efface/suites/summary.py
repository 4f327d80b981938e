"""The summary of how a list was read: what its rows ask for, which rows are left out and why, and unused columns."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..plurals import write_count
from .entries import LeftOut, count_lines

SHOWN = 5


@dataclass(frozen=True)
class ListSummary:
    """How a list was read."""

    file: str
    rows: int
    """The number of the file's rows."""
    said_by: str
    """What decides what a row asks for: a column, its prompt, or a flag."""
    asked: tuple[tuple[str, int], ...]
    """The things that rows ask for, each with the number of rows that are drawn."""
    left_out: tuple[LeftOut, ...] = ()
    unread: tuple[str, ...] = ()
    """The columns that were not read."""
    remarks: tuple[str, ...] = ()

    def format_lines(self) -> list[str]:
        """The summary in words, a line for each fact."""
        asked = "; ".join(f"{what} ({count})" for what, count in self.asked)
        out = [
            f"{self.file} has {write_count(self.rows, 'row')}; what each asks for is decided by {self.said_by}. To "
            f"be drawn: {asked}"
        ]
        for why, lines in count_lines(self.left_out).items():
            out.append(f"left out: {_count(lines)}: {why}")
        if self.unread:
            out.append(f"columns not read: {', '.join(self.unread)}")
        return [*out, *self.remarks]


def _count(lines: Sequence[int]) -> str:
    shown = ", ".join(map(str, lines[:SHOWN]))
    more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return f"1 row (line {shown})" if len(lines) == 1 else f"{len(lines)} rows (lines {shown}{more})"
