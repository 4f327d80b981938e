"""The rows of a list before it is known what is erased, and the rows that are left out because they have no prompt."""

import hashlib
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..concept import fold_name
from ..files.formats import PROMPT
from ..plurals import write_count
from .table import Table, refuse

SEED = ("evaluation_seed", "sd_seed", "seed")
GUIDANCE = ("evaluation_guidance", "sd_guidance_scale", "guidance", "guidance_scale")
CASE = ("case_number",)
SECOND = ("second",)
GROUP = ("group",)
GROUPS = ("target", "paraphrase", "neighbour", "unrelated")
"""The values of a column of groups, as in a drafted suite; other values are ignored."""
LOST = frozenset({"null", "none", "na", "n/a", "#n/a", "nan", "<na>"})
"""The words in tables for a missing value."""
TEMPLATE = re.compile(r"\{(|name|artist|style|theme|object|class|label|concept|target|subject|word)\}")
SEEDS = 2**31


@dataclass(frozen=True)
class Entry:
    """A row of a list, before it is known what is erased."""

    case: str
    prompt: str
    seed: int
    guidance: float | None = None
    label: str = ""
    second: str = ""
    group: str = ""
    """One of `GROUPS`, if a column says so."""
    line: int = 0


@dataclass(frozen=True)
class LeftOut:
    """A row that is not drawn."""

    line: int
    why: str


def read_entries(table: Table, label: str | None, blank: bool = False) -> tuple[list[Entry], list[LeftOut]]:
    """A table's rows, and those without a prompt; without a column of seeds, they depend on a row's prompt and number.

    Args:
        table: the table.
        label: the column that says what a row asks for.
        blank: whether that column may be empty.

    Raises:
        ValueError: there are no prompts, or cells of rows are empty or no numbers; the message names their lines.
    """
    prompt = table.find_column(PROMPT, "what to draw")
    seed, guidance, case, second, group = (table.find(names) for names in (SEED, GUIDANCE, CASE, SECOND, GROUP))
    out, left_out, problems, seen, drawn = [], [], [], {}, {}
    for i, line in enumerate(table.lines):
        text = table.read_text(i, prompt)
        if why := is_no_prompt(text, prompt):
            left_out.append(LeftOut(line, why))
            continue
        try:
            check_text(table.rows[i].get(prompt), prompt)
            if label and not blank and not table.read_text(i, label):
                raise ValueError(f"{label} is empty")
            number = parse_whole(table.read_text(i, case), case) if case else i
            if seen.setdefault(number, line) != line:
                raise ValueError(f"{case} {number} stands on line {seen[number]} already")
            start = parse_whole(table.read_text(i, seed), seed) if seed else derive_seed(text, number)
            scale = parse_guidance(table.read_text(i, guidance), guidance) if guidance else None
            same = (text, start, scale, *(fold_name(table.read_text(i, column)) for column in (label, second)))
            if drawn.setdefault(same, line) != line:
                left_out.append(LeftOut(line, "it repeats an earlier line, so it would count one picture twice"))
                continue
            out.append(
                Entry(
                    case=f"{number:05d}",
                    prompt=text,
                    seed=start,
                    guidance=scale,
                    label=table.read_text(i, label),
                    second=table.read_text(i, second),
                    group=told if (told := table.read_text(i, group)) in GROUPS else "",
                    line=line,
                )
            )
        except ValueError as error:
            problems.append(f"line {line}: {error}")
    refuse(table.file, problems)
    return spell_alike(out), left_out


def spell_alike(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with labels of one name spelled as the first of them: "Cat" and "cat" are one concept."""
    first: dict[str, str] = {}

    def spell(label: str) -> str:
        return first.setdefault(fold_name(label), label)

    return [replace(entry, label=spell(entry.label), second=spell(entry.second)) for entry in entries]


def check_prompts(table: Table) -> None:
    """Raises ValueError where there is no column of prompts, or no prompt in it."""
    column = table.find_column(PROMPT, "what to draw")
    whys = [is_no_prompt(table.read_text(i, column), column) for i in range(len(table.rows))]
    if all(whys):
        raise ValueError(f"{table.file} has no row to draw: of {write_count(len(whys), 'row')} the first: {whys[0]}")


def is_no_prompt(text: str, column: str) -> str:
    """The reason why a cell is no prompt; "" where it is one.

    >>> is_no_prompt("NaN", "prompt"), is_no_prompt("a photo of {name}", "prompt"), is_no_prompt("a cat", "prompt")
    ("prompt is 'NaN', which stands for a lost cell", 'prompt is a template, with {name} to fill in', '')
    """
    if not text:
        return f"{column} is empty"
    if fold_name(text) in LOST:
        return f"{column} is {text!r}, which stands for a lost cell"
    found = TEMPLATE.search(text)
    return f"{column} is a template, with {found[0]} to fill in" if found else ""


def check_text(held: object, column: str) -> None:
    """Raises ValueError for a cell that is neither a text nor a list that begins with one."""
    first = held[0] if isinstance(held, (list, tuple)) and held else held
    if not isinstance(first, str):
        raise ValueError(f"{column} is {str(first)[:50]!r}, a {type(first).__name__}; a text would have worked")


def parse_whole(cell: str, column: str | None) -> int:
    """Reads a cell as a whole number from 0; "12.0", as pandas writes it, is one."""
    try:
        value = float(cell)
        if not cell.isdigit() and (not value.is_integer() or abs(value) > 2**53):
            raise ValueError
        number = int(cell) if cell.isdigit() else int(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{column} is {cell!r}, not a whole number") from None
    digits, _, power = cell.casefold().partition("e")
    if power and sum(c.isdigit() for c in digits) <= int(power):
        raise ValueError(f"{column} is {cell!r}, of which a spreadsheet kept the first digits alone; write it out")
    if not 0 <= number < 2**63:
        raise ValueError(f"{column} is {number}; it must be at least 0 and under 2^63")
    return number


def parse_guidance(cell: str, column: str | None) -> float | None:
    """Reads a cell as a guidance; None where it is empty."""
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{column} is {cell!r}, not a number of at least 0")
    return value


def derive_seed(prompt: str, number: int) -> int:
    """A seed for a prompt without one, which is the same every time."""
    return int.from_bytes(hashlib.sha256(f"{number}/{prompt}".encode()).digest()[:8], "big") % SEEDS


def expand_pairs(pairs: Iterable[Mapping[str, str]], seeds: int, salt: str) -> list[Entry]:
    """Makes entries from prompts that name two things, each with this number of seeds."""
    out = []
    for pair in pairs:
        rng = random.Random(f"{salt}/{pair['prompt']}")
        for _ in range(seeds):
            case = f"{len(out):05d}"
            out.append(Entry(case, pair["prompt"], rng.randrange(SEEDS), label=pair["first"], second=pair["second"]))
    return out


def count_lines(left_out: Sequence[LeftOut]) -> dict[str, list[int]]:
    """The lines of rows that are left out, by reason."""
    out: dict[str, list[int]] = {}
    for row in left_out:
        out.setdefault(row.why, []).append(row.line)
    return out
