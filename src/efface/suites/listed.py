"""Suites from lists: files in the field's layouts, pairs of things, and files of the hub.

A list has a row a picture: `prompt`, a seed (`evaluation_seed`; of I2P on the hub `sd_seed`), where it has them a
guidance and a label. What is done with a row follows from its label and the erasure: a label that names a target is to
be gone, any other to stay. Labels: `label_str` or `class` (objects), `artist` or `style` (styles); COCO's captions have
none, so that nothing is asked of them but how they change; I2P's prompts have none either and are all asked for nudity
where that is erased.
"""

import dataclasses
import hashlib
import math
import random
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..catalog import did_you_mean
from ..concept import Erasure
from ..functional.rates import names_of, same
from .spec import GroupSpec, Row, Suite, SuiteSpec, chosen
from .table import Table, read_table, refuse
from .world import ends_alike

PROMPT = ("prompt", "caption", "captions")
SEED = ("evaluation_seed", "sd_seed", "seed")
GUIDANCE = ("evaluation_guidance", "sd_guidance_scale", "guidance", "guidance_scale")
CASE = ("case_number",)
OBJECT = ("label_str", "class", "label", "object")
STYLE = ("artist", "style")
SECOND = ("second",)
I2P = ("nudity_percentage", "inappropriate_percentage")
NUDITY = frozenset({"nudity", "nude", "naked", "nakedness", "sexual", "sex", "nsfw", "porn", "pornography", "erotic"})
SEEDS = 2**31

TITLES = {
    "target": "the target",
    "beside": "the second thing, named beside the target",
    "pair": "one of two kept things in a prompt",
    "seen": "other labels, which fitting may have used (vocabulary, keep list)",
    "unseen": "other labels, which fitting never saw",
    "caption": "captions that name no target",
}


@dataclass(frozen=True)
class Entry:
    """A row of a list, before it is known what is erased."""

    case: str
    prompt: str
    seed: int
    guidance: float | None = None
    label: str = ""
    second: str = ""


def read_csv(
    path: str | Path,
    erasure: Erasure,
    per_group: int | None = None,
    only: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    used: Sequence[str] = (),
) -> Suite:
    """A suite from a .csv or .parquet file: I2P, Imagenette, artists or COCO as people have them.

    Args:
        per_group: at most so many pictures in each group, spread over its labels; all by default.
        only: names of the groups to make; all when empty.
        sizes: as `per_group`, for single groups by name.
        used: further words that fitting has used, which therefore count as seen.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing, rows are malformed (named by their lines), an unknown group.
    """
    table = read_table(path)
    spec = SuiteSpec(
        name=Path(path).stem,
        version=table.sha256[:12],
        licence="the file's own",
        source=table.file,
        about=f"{len(table.rows)} rows of {table.file}",
        targets="labels",
    )
    return of_table(spec, table, erasure, per_group, only, sizes, used)


def of_table(
    spec: SuiteSpec,
    table: Table,
    erasure: Erasure,
    per_group: int | None = None,
    only: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    used: Sequence[str] = (),
) -> Suite:
    """A suite from a table's rows: what it asks follows from its columns."""
    nude = table.find(I2P) is not None and any(map(nudity, erasure.targets))
    column = table.find(OBJECT) or table.find(STYLE)
    asks = "nudity" if nude else ("match" if column is None else ("style" if column == table.find(STYLE) else "object"))
    listed = entries(table, None if nude else column)
    return made(spec, listed, asks, erasure, per_group, only, sizes or {}, used)


def entries(table: Table, label: str | None) -> list[Entry]:
    """A table's rows; seeds come from each row's prompt and place where there is no column for them.

    Raises:
        ValueError: no prompts, or rows whose cells are empty or no numbers: names their lines.
    """
    prompt = table.column(PROMPT, "what to draw")
    seed, guidance, case = table.find(SEED), table.find(GUIDANCE), table.find(CASE)
    second = table.find(SECOND)
    out, problems, seen = [], [], {}
    for i, line in enumerate(table.lines):
        try:
            text = table.text(i, prompt)
            if not text:
                raise ValueError(f"{prompt} is empty")
            if label and not table.text(i, label):
                raise ValueError(f"{label} is empty")
            number = whole(table.text(i, case), case) if case else i
            if seen.setdefault(number, line) != line:
                raise ValueError(f"{case} {number} stands on line {seen[number]} already")
            out.append(
                Entry(
                    case=f"{number:05d}",
                    prompt=text,
                    seed=whole(table.text(i, seed), seed) if seed else placed(text, number),
                    guidance=positive(table.text(i, guidance), guidance) if guidance else None,
                    label=table.text(i, label),
                    second=table.text(i, second),
                )
            )
        except ValueError as error:
            problems.append(f"line {line}: {error}")
    refuse(table.file, problems)
    return out


def whole(cell: str, column: str | None) -> int:
    """A cell as a whole number from 0; "12.0", as pandas writes it, is one."""
    try:
        value = float(cell)
        if not cell.isdigit() and (not value.is_integer() or abs(value) > 2**53):
            raise ValueError
        number = int(cell) if cell.isdigit() else int(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{column} is {cell!r}, not a whole number") from None
    if not 0 <= number < 2**63:
        raise ValueError(f"{column} is {number}; it must be at least 0 and under 2^63")
    return number


def positive(cell: str, column: str | None) -> float | None:
    """A cell as a guidance; None where it is empty."""
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{column} is {cell!r}, not a number of at least 0")
    return value


def placed(prompt: str, number: int) -> int:
    """A seed for a prompt that has none, the same every time."""
    return int.from_bytes(hashlib.sha256(f"{number}/{prompt}".encode()).digest()[:8], "big") % SEEDS


def made(
    spec: SuiteSpec,
    listed: Sequence[Entry],
    asks: str,
    erasure: Erasure,
    per_group: int | None,
    only: Sequence[str],
    sizes: Mapping[str, int],
    used: Sequence[str],
) -> Suite:
    """The rows of a list for what is erased, group by group."""
    names = Names.of(asks, erasure, used)
    rows = [row for entry in listed for row in names.rows(entry)]
    there = [g for g in TITLES if any(r.group == g for r in rows)]
    if asks in ("object", "style") and not {"target", "beside"} & set(there):
        labels = list(dict.fromkeys(e.label for e in listed))
        wanted = ", ".join(erasure.targets)
        warnings.warn(
            f"no label of {spec.name} is {wanted}: every row is kept{did_you_mean(wanted, labels)}", stacklevel=2
        )
    groups = [_group(g, [r for r in rows if r.group == g]) for g in there]
    suite = dataclasses.replace(spec, groups=tuple(groups))
    kept: list[Row] = []
    for group in chosen(suite, only, per_group, sizes):
        kept += thinned([r for r in rows if r.group == group.name], group.size)
    return Suite(suite, names.targets, tuple(kept))


def _group(name: str, rows: Sequence[Row]) -> GroupSpec:
    return GroupSpec(name, "labels", rows[0].role, rows[0].asks, len(rows), TITLES[name])


@dataclass(frozen=True)
class Names:
    """Who is erased and who was used in fitting, by every name."""

    asks: str
    targets: tuple[str, ...]
    touched: frozenset[str]
    nude: bool
    """Whether nudity alone is erased: then no label tells whether it is gone, but a detector."""

    @staticmethod
    def of(asks: str, erasure: Erasure, used: Sequence[str]) -> "Names":
        touched = (name for word in (*erasure.keep, *used) for name in names_of(word))
        return Names(asks, erasure.targets, frozenset(touched), all(map(nudity, erasure.targets)))

    def erased(self, label: str) -> bool:
        return any(same(label, t) or (self.asks == "style" and ends_alike(label, t)) for t in self.targets)

    def rows(self, entry: Entry) -> list[Row]:
        """What is asked of an entry: one row, or one for each of two things where one of them is a target."""
        if self.asks in ("nudity", "match"):
            group = "target" if self.asks == "nudity" else "caption"
            return [self._row(entry, group, "", "")]
        if not entry.second:
            return [self._row(entry, self._group(entry.label), entry.label, "")]
        both = (entry.label, entry.second)
        gone = [self.erased(label) for label in both]
        if not any(gone):
            return [self._row(entry, "pair", *both)]
        pairs = zip(both, both[::-1], gone, strict=True)
        return [self._row(entry, "target" if g else "beside", one, other) for one, other, g in pairs]

    def _group(self, label: str) -> str:
        if self.erased(label):
            return "target"
        return "unseen" if names_of(label).isdisjoint(self.touched) else "seen"

    def _row(self, entry: Entry, group: str, label: str, second: str) -> Row:
        about = label or ("nudity" if self.asks == "nudity" else "captions")
        return Row(
            id=f"{group}/{about}/{entry.case}",
            prompt=entry.prompt,
            seed=entry.seed,
            group=group,
            role="erase" if group == "target" else "keep",
            asks="nudity" if self.nude and group == "target" else self.asks,
            concept=about,
            counts=(label,) if label else (),
            thing=label if self.asks == "object" else "",
            style=label if self.asks == "style" else "",
            second=second,
            guidance=entry.guidance,
        )


def nudity(target: str) -> bool:
    """Is it nudity that is meant?"""
    return not NUDITY.isdisjoint(target.casefold().replace("_", " ").split())


def thinned(rows: Sequence[Row], size: int) -> list[Row]:
    """At most `size` of the rows, as evenly over their concepts as can be, in their order."""
    turns: dict[str, int] = {}
    ranked = []
    for place, row in enumerate(rows):
        turns[row.concept] = turns.get(row.concept, 0) + 1
        ranked.append((turns[row.concept], place))
    return [rows[place] for place in sorted(place for _, place in sorted(ranked)[:size])]


def paired(pairs: Iterable[Mapping[str, str]], seeds: int, salt: str) -> list[Entry]:
    """Entries of prompts that name two things, each with so many seeds."""
    out = []
    for pair in pairs:
        rng = random.Random(f"{salt}/{pair['prompt']}")
        for _ in range(seeds):
            case = f"{len(out):05d}"
            out.append(Entry(case, pair["prompt"], rng.randrange(SEEDS), label=pair["first"], second=pair["second"]))
    return out
