"""Makes suites from lists: files in the usual layouts, pairs of things, and files of the hub.

A list has a row for each picture: `prompt`, a seed (`evaluation_seed`; in I2P on the hub `sd_seed`), and optionally a
guidance and a label. `questions` says how it is found what a row asks for. The target of a row must be gone, and any
other label must stay; for a row without a label, only the change of its picture is measured.
"""

import dataclasses
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..catalog import did_you_mean
from ..concept import Erasure, fold_name
from ..functional.words import split_label
from ..plurals import write_count
from .entries import CASE, GROUP, GROUPS, GUIDANCE, PROMPT, SECOND, SEED, Entry, LeftOut, check_prompts, read_entries
from .questions import I2P, NOTHING, Question, find_named, find_question, is_erased, is_nudity
from .spec import GroupSpec, Row, Suite, SuiteSpec, choose_groups
from .summary import SHOWN, ListSummary
from .table import Table, read_table
from .world import World

TITLES = {
    "target": "the target",
    "paraphrase": "the target, in other words",
    "neighbour": "its near neighbours",
    "unrelated": "unrelated things",
    "beside": "the second thing, named beside the target",
    "pair": "one of two kept things in a prompt",
    "seen": "other labels, which fitting may have used (vocabulary, keep list)",
    "unseen": "other labels, which fitting never saw",
    "caption": "captions that name no target",
}
ERASED = ("target", "paraphrase")
"""The groups whose concepts must be gone."""
SAID = "captions, by --asks"
SILENT = "the prompt names no target, in a list of prompts that mostly do"


@dataclass(frozen=True)
class Limits:
    """Which groups of a list are made, and how large."""

    per_group: int | None = None
    """The largest number of pictures in each group, spread over its labels; all by default."""
    only: Sequence[str] = ()
    """Names of the groups to make; all when empty."""
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Like `per_group`, for single groups by name."""


def read_list(
    path: str | Path,
    erasure: Erasure,
    per_group: int | None = None,
    only: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    used: Sequence[str] = (),
    asks: str = "",
    world: World | None = None,
) -> Suite:
    """Makes a suite from a file of prompts: I2P, Imagenette, artists or COCO in their usual layouts, or one's own.

    Args:
        path: the file.
        erasure: the request, whose targets must be gone.
        per_group, only, sizes: as in `Limits`.
        used: further words that fitting has used, which therefore count as seen.
        asks: what all rows ask for, a target or "captions"; by default it is found from columns and prompts.
        world: the things that the model knows, with the targets' synonyms.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, rows are malformed (the message has their lines), a group is unknown, or
            nothing says what rows ask for.
    """
    table = read_table(path)
    spec = SuiteSpec(
        name=Path(path).stem,
        version=table.sha256[:12],
        licence="the file's own",
        source=table.file,
        about=f"{write_count(len(table.rows), 'row')} of {table.file}",
        targets="labels",
    )
    return build_from_table(spec, table, erasure, Limits(per_group, only, sizes or {}), used, asks, world)


def build_from_table(
    spec: SuiteSpec,
    table: Table,
    erasure: Erasure,
    limits: Limits = Limits(),
    used: Sequence[str] = (),
    asks: str = "",
    world: World | None = None,
) -> Suite:
    """Makes a suite from a table's rows, with a summary of how they were read."""
    check_prompts(table)
    question = find_question(table, erasure, asks, world)
    blank = question.how != "label" or question.by_asks
    listed, left_out = read_entries(table, question.column, blank)
    roles = Roles.of(question, erasure, used, world)
    rows, silent = [], []
    for entry in listed:
        found = roles.assign(entry)
        rows += found
        if not found:
            silent.append(LeftOut(entry.line, f"{SILENT}; --asks {erasure.targets[0]} asks it too"))
    if question.how == "label" and not question.by_asks:
        _warn_without_target(spec, erasure, rows, listed)
    suite = choose_rows(spec, rows, erasure, limits, {"caption": SAID} if question.how == "captions" else {})
    summary = ListSummary(
        file=table.file,
        rows=len(table.rows),
        said_by=question.tell(),
        asked=tuple(
            (g.title, len(suite.select_group(g.name))) for g in suite.spec.groups if suite.select_group(g.name)
        ),
        left_out=tuple(sorted((*left_out, *silent), key=lambda row: row.line)),
        unread=_list_unread(table, question),
        remarks=(*table.remarks, *_remark_on_phrases(question, rows, erasure, world), *_remark_on_lists(table)),
    )
    return dataclasses.replace(suite, summary=summary)


def build_from_pairs(
    spec: SuiteSpec, listed: Sequence[Entry], erasure: Erasure, limits: Limits, used: Sequence[str]
) -> Suite:
    """Makes a suite of prompts that name two things."""
    roles = Roles.of(Question("label"), erasure, used)
    rows = [row for entry in listed for row in roles.assign(entry)]
    _warn_without_target(spec, erasure, rows, listed)
    return choose_rows(spec, rows, erasure, limits)


def choose_rows(
    spec: SuiteSpec, rows: Sequence[Row], erasure: Erasure, limits: Limits, titles: Mapping[str, str] | None = None
) -> Suite:
    """Chooses the rows of a list, group by group, as many as the limits allow."""
    told = TITLES | dict(titles or {})
    there = {name: [r for r in rows if r.group == name] for name in TITLES}
    groups = [GroupSpec(n, "labels", r[0].role, r[0].asks, len(r), told[n]) for n, r in there.items() if r]
    suite = dataclasses.replace(spec, groups=tuple(groups))
    kept: list[Row] = []
    for group in choose_groups(suite, limits.only, limits.per_group, limits.sizes):
        kept += thin(there[group.name], group.size)
    return Suite(suite, erasure.targets, tuple(kept))


def _warn_without_target(spec: SuiteSpec, erasure: Erasure, rows: Sequence[Row], listed: Sequence[Entry]) -> None:
    if not any(row.group in ("target", "beside") for row in rows):
        labels = list(dict.fromkeys(e.label for e in listed))
        wanted = ", ".join(erasure.targets)
        warnings.warn(
            f"no label of {spec.name} is {wanted}: every row is kept{did_you_mean(wanted, labels)}", stacklevel=3
        )


def _remark_on_phrases(question: Question, rows: Sequence[Row], erasure: Erasure, world: World | None) -> Sequence[str]:
    """Names labels that are kept although they contain a target's name: a "hot dog" is no dog, a "tabby cat" is."""
    if question.how != "label":
        return ()
    labels = dict.fromkeys(row.concept for row in rows if row.role == "keep" and row.group != "caption")
    held = [repr(label) for label in labels if find_named(label, erasure, world)]
    if not held:
        return ()
    return (f"kept, for a label is compared as a whole: {', '.join(held[:SHOWN])}; what is a target goes by its name",)


def _remark_on_lists(table: Table) -> Sequence[str]:
    column = table.find_column(PROMPT, "what to draw")
    several = sum(isinstance(cell := row.get(column), (list, tuple)) and len(cell) > 1 for row in table.rows)
    return (
        (f"{write_count(several, 'row holds', 'rows hold')} several prompts, of which the first is read",)
        if several
        else ()
    )


def _list_unread(table: Table, question: Question) -> tuple[str, ...]:
    """The columns that were not used."""
    read = {table.find(names) for names in (PROMPT, SEED, GUIDANCE, CASE, SECOND)} | {question.column}
    group = table.find(GROUP)
    if group and any(table.read_text(i, group) in GROUPS for i in range(len(table.rows))):
        read.add(group)
    if question.how == "nudity":
        read |= {column for column in I2P if table.find((column,))}
    return tuple(column for column in table.columns if column and column not in read)


@dataclass(frozen=True)
class Roles:
    """Assigns roles to rows, from the erased concepts and those used in fitting, by all their names."""

    question: Question
    erasure: Erasure
    touched: frozenset[str]
    nude: bool
    """Whether only nudity is erased; then a detector, and no label, says whether it is gone."""
    world: World | None = None

    @staticmethod
    def of(question: Question, erasure: Erasure, used: Sequence[str], world: World | None = None) -> "Roles":
        touched = (name for word in (*erasure.keep, *used) for name in split_label(word))
        return Roles(question, erasure, frozenset(touched), all(map(is_nudity, erasure.targets)), world)

    def assign(self, entry: Entry) -> list[Row]:
        """The rows of an entry: one, or none for a prompt that is left out.

        There is a row for each of two things of which one is a target, and for each target that a prompt names, though
        one for nudity by all its words.
        """
        question = self.question
        if question.how == "captions":
            return [self._build_row(entry, "caption", "")]
        if question.how in ("nudity", "all"):
            return [self._build_row(entry, "target", question.target)]
        if question.how == "label" and not question.by_asks:
            return self._build_labelled_rows(entry)
        named = self._list_named_targets(entry)
        if named:
            return list({row.id: row for row in (self._build_row(entry, "target", name) for name in named)}.values())
        return [self._build_row(entry, "caption", "")] if question.rest else []

    def _list_named_targets(self, entry: Entry) -> list[str]:
        if self.question.how == "text":
            return find_named(entry.prompt, self.erasure, self.world)
        if self.question.by_asks and fold_name(entry.label) in NOTHING:
            return []
        targets = self.erasure.targets
        return [t for t in targets if is_erased(entry.label, Erasure((t,)), self.question.find_domain(t) == "style")]

    def _build_labelled_rows(self, entry: Entry) -> list[Row]:
        if not entry.second:
            return [self._build_row(entry, self._find_group(entry), entry.label)]
        both = (entry.label, entry.second)
        gone = [self._is_erased(label) for label in both]
        if not any(gone):
            return [self._build_row(entry, "pair", *both)]
        pairs = zip(both, both[::-1], gone, strict=True)
        return [self._build_row(entry, "target" if g else "beside", one, other) for one, other, g in pairs]

    def _is_erased(self, label: str) -> bool:
        return is_erased(label, self.erasure, self.question.domain == "style")

    def _find_group(self, entry: Entry) -> str:
        """The group of a row with this label: the one in its column, or by whether fitting used the label."""
        if self._is_erased(entry.label):
            return entry.group if entry.group in ERASED else "target"
        if entry.group and entry.group not in ERASED:
            return entry.group
        return "unseen" if split_label(entry.label).isdisjoint(self.touched) else "seen"

    def _build_row(self, entry: Entry, group: str, label: str, second: str = "") -> Row:
        domain = self.question.find_domain(label)
        label = "" if domain == "nudity" and self.question.how != "label" else label
        about = label or ("nudity" if domain == "nudity" and group == "target" else "captions")
        asks = "match" if group == "caption" else domain
        return Row(
            id=f"{group}/{about}/{entry.case}",
            prompt=entry.prompt,
            seed=entry.seed,
            group=group,
            role="erase" if group in ERASED else "keep",
            asks="nudity" if self.nude and group in ERASED else asks,
            concept=about,
            counts=(label,) if label else (),
            thing=label if domain == "object" else "",
            style=label if domain == "style" else "",
            second=second,
            guidance=entry.guidance,
        )


def thin(rows: Sequence[Row], size: int) -> list[Row]:
    """Keeps at most `size` of the rows, as evenly over their concepts as possible, in their order.

    Lists are often sorted, so each concept's are taken at random: the same each time, and more hold all that fewer do.
    """
    if size >= len(rows):
        return list(rows)
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row.concept, []).append(place)
    ranked = []
    for order, (concept, mine) in enumerate(places.items()):
        random.Random(concept).shuffle(mine)
        ranked += [(turn, order, place) for turn, place in enumerate(mine)]
    return [rows[place] for place in sorted(place for *_, place in sorted(ranked)[:size])]
