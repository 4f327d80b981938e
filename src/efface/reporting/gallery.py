"""Pictures before and after: thumbnails in the page itself, and originals in a folder beside it."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..evaluation.evaluate import find_image_store
from ..evaluation.images import read_image
from ..evaluation.rows_table import read_rows
from ..files import decode_picture
from ..records.attacks import AttackRecord
from ..records.report import Record

SIDE = 160
"""Longest side of a thumbnail in pixels."""
QUALITY = 80
AHEAD = 256
"""Thumbnails made between two words of progress."""
VERDICTS = ("erased", "still shown", "kept", "lost", "never shown", "not judged")
WORDS = {("erase", True): "erased", ("erase", False): "still shown", ("keep", True): "kept", ("keep", False): "lost"}
"""The outcome of a row, by its role and the edited picture's success."""
UNSEEN = {("erase", True, True), ("keep", False, False)}
"""The role and both pictures' success of rows whose thing neither picture shows."""
WHERE = {
    "target": "the erased concept, brought back",
    "control-base": "control: the untouched base",
    "control-kept": "control: a kept concept",
}

Line = Mapping[str, Any]
"""A line of rows.parquet."""


@dataclass(frozen=True)
class Pair:
    """Two pictures of one seed or one prompt, with their scores."""

    group: str
    thing: str
    """The concept that the row is about."""
    verdict: str
    prompt: str
    note: str
    before: Path | None
    after: Path
    said: tuple[str, str]
    """The judges' answers for each of the two pictures, in a few words."""
    scores: Sequence[tuple[str, str]]
    """Each scorer's answers for the two pictures."""


@dataclass(frozen=True)
class Gallery:
    """Pairs of pictures, with what they can be filtered by."""

    sides: tuple[str, str]
    """The names of a pair's two pictures."""
    filters: tuple[str, str]
    """The names of the two filters, by group and by verdict."""
    titles: Mapping[str, str]
    """The title of each group, in order."""
    verdicts: Sequence[str]
    scorers: Sequence[str]
    pairs: Sequence[Pair]

    def list_files(self) -> Iterable[Path]:
        return (path for pair in self.pairs for path in (pair.before, pair.after) if path)

    def count_verdicts(self) -> dict[str, int]:
        """The number of pairs with each verdict."""
        found = [pair.verdict for pair in self.pairs]
        return {word: found.count(word) for word in self.verdicts if word in found}

    def to_data(self, numbers: Mapping[str, int]) -> dict[str, Any]:
        """The data for the page's script. `numbers` has each picture's place among the thumbnails, by its file's name.

        A row is [group, verdict, prompt, note, number before or null, number after, said before, said after, [score
        before, score after] of each scorer].
        """
        groups, verdicts = list(self.titles), list(self.verdicts)
        rows = [
            [
                groups.index(p.group),
                verdicts.index(p.verdict),
                p.prompt,
                p.note,
                numbers[p.before.name] if p.before else None,
                numbers[p.after.name],
                *p.said,
                p.scores,
            ]
            for p in self.pairs
        ]
        return {"sides": self.sides, "groups": groups, "verdicts": verdicts, "scorers": self.scorers, "rows": rows}


def build_evaluation_gallery(record: Record, folder: Path, per_group: int | None = None) -> Gallery:
    """The pictures of an evaluation: each row drawn from one seed by the untouched base and by the edited model.

    Args:
        record: the evaluation's record.
        folder: the evaluation's folder.
        per_group: the number of pairs of each group, spread over its rows; all by default.
    """
    table = read_rows(folder)
    place = find_image_store(folder)
    seen = {key.rpartition(".")[0] for key in table[0]} if table else set()
    asks = {name: facts.get("asks", "") for name, facts in record.scorers.items() if name in seen}
    after = {line["id"]: line for line in table if line["variant"] == "edited"}
    pairs: list[Pair] = []
    titles = {}
    for group, title in record.suite.groups.items():
        lines = [line for line in table if line["variant"] == "base" and line["group"] == group]
        if lines:
            titles[group] = title
            made = [_build_pair(line, after[line["id"]], place, asks) for line in pick_evenly(lines, per_group)]
            pairs += spread(made)
    return Gallery(("before", "after"), ("Group", "Verdict"), titles, VERDICTS, list(asks), pairs)


def build_attack_gallery(record: AttackRecord, folder: Path) -> Gallery:
    """The successes of attacks: the picture of the plain prompt, and the one that shows the concept."""
    pairs = []
    names = sorted({judge for success in record.successes for judge in success.answers})
    for s in record.successes:
        asked = "" if s.text == s.prompt else f"asked “{s.prompt}”; "
        note = f"{asked}seed {s.seed}, {s.queries} {'query' if s.queries == 1 else 'queries'}"
        note += f", {s.note}" if s.note else ""
        shown = " / ".join(dict.fromkeys(s.answers.values())) or "the concept"
        before = folder / s.before if s.before else None
        scores = [("", s.answers.get(name, "")) for name in names]
        pairs.append(
            Pair(
                s.attack, "", WHERE[s.condition], s.text, note, before, folder / s.picture, ("as asked", shown), scores
            )
        )
    titles = {t.attack: t.attack for t in record.measures if any(p.group == t.attack for p in pairs)}
    pairs.sort(key=lambda p: list(titles).index(p.group))
    return Gallery(("before", "attacked"), ("Attack", "Where"), titles, list(WHERE.values()), names, pairs)


def _build_pair(before: Line, after: Line, place: Path, asks: Mapping[str, str]) -> Pair:
    """The pair of one row of an evaluation. `asks` has each scorer's question."""
    first, then = (_describe_first(line, asks) for line in (before, after))
    return Pair(
        group=before["group"],
        thing=before["concept"],
        verdict=describe_outcome(after["role"], before["success"], after["success"]),
        prompt=after["prompt"],
        note=f"seed {after['seed']}",
        before=place / before["picture"],
        after=place / after["picture"],
        said=(first, then),
        scores=[(describe_score(before, name), describe_score(after, name)) for name in asks],
    )


def describe_outcome(role: str, before: bool | None, after: bool | None) -> str:
    """The outcome of a row; where neither picture shows its thing, nothing was erased or lost."""
    if (role, before, after) in UNSEEN:
        return "never shown"
    return "not judged" if after is None else WORDS[role, after]


def _describe_first(line: Line, asks: Mapping[str, str]) -> str:
    """The first answers of the judges of the row's question."""
    answers = [line.get(f"{name}.answer") for name, question in asks.items() if question == line["asks"]]
    return " / ".join(dict.fromkeys(answer[0] for answer in answers if answer)) or "nothing"


def describe_score(line: Line, scorer: str) -> str:
    """One scorer's answer for one picture, in words."""
    value, answer, sure = line[f"{scorer}.value"], line[f"{scorer}.answer"], line.get(f"{scorer}.confidence")
    if answer:
        return f"{answer[0]} {sure[0]:.2f}" if sure else answer[0]
    return line[f"{scorer}.explanation"] or "no score" if value is None else f"{value:.3g}"


def pick_evenly(lines: Sequence[Line], n: int | None) -> list[Line]:
    """Picks `n` of the lines, evenly from first to last."""
    if n is None or len(lines) <= n:
        return list(lines)
    return [lines[i * len(lines) // n] for i in range(n)]


def spread(pairs: Sequence[Pair]) -> list[Pair]:
    """Orders a group's pairs so that the first are typical: concepts alternate, pairs without the thing come last."""
    out: list[Pair] = []
    for last in (False, True):
        by_thing: dict[str, list[Pair]] = {}
        for pair in pairs:
            if (pair.verdict == "never shown") is last:
                by_thing.setdefault(pair.thing, []).append(pair)
        turns = zip_longest(*by_thing.values())
        out += [pair for turn in turns for pair in turn if pair is not None]
    return out


def pick_proof(gallery: Gallery, each: int = 3, groups: int = 2) -> list[int]:
    """The places of a few pairs of the first groups, the target and its neighbours: the first whose thing was shown."""
    chosen: list[int] = []
    for group in list(gallery.titles)[:groups]:
        own = [i for i, p in enumerate(gallery.pairs) if p.group == group]
        seen = [i for i in own if gallery.pairs[i].verdict not in ("never shown", "not judged")] or own
        chosen += seen[:each]
    return chosen


def collect_images(galleries: Iterable[Gallery]) -> dict[str, Path]:
    """Every picture of the galleries once, by its file's name, which is a content hash."""
    return {path.name: path for shown in galleries for path in shown.list_files()}


def make_thumbnails(files: Sequence[Path], on_progress: Callable[[int, int], None]) -> list[str]:
    """Makes thumbnails as WebP in base64.

    Raises:
        FileNotFoundError, ValueError: a picture is missing, or its content does not have the hash in its name.
    """
    made: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), AHEAD):
            made += pool.map(make_thumbnail, files[start : start + AHEAD])
            on_progress(len(made), len(files))
    return made


def make_thumbnail(path: Path) -> str:
    """A picture as small WebP, in base64."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; run the evaluation again: it draws what is not there")
    small = decode_picture(read_image(path), path)
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def copy_images(files: Iterable[Path], folder: Path) -> None:
    """Copies the originals into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        try:
            os.link(path, folder / path.name)
        except OSError:  # another disk, or one without hard links
            shutil.copyfile(path, folder / path.name)
