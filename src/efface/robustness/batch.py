"""One attack on one batch of rows: draw its shots, ask the judges, stop each row at its first success.

A finished batch is one JSON file, named by the digest of everything that it depends on, so that an interrupted run
loses the batch it was in and no more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from ..attacks.base import Arena, Attack, Shot
from ..concept import Prompt
from ..evaluation import judging
from ..evaluation.images import batch_of, picture, png
from ..files import hash_bytes, write_tensors, write_whole
from ..models.base import Model
from ..models.fingerprint import raw
from ..records.attacks import Outcome
from ..records.report import Part
from ..scorers.base import Scorer
from ..suites.spec import Row

PICTURES = "pictures"


@dataclass(frozen=True)
class Seen:
    """What the judges said of one picture."""

    verdict: bool | None
    """Whether all of them see the concept first of all."""
    answers: dict[str, str]
    """The first answer of each."""


@dataclass(frozen=True)
class Jury:
    """The judges of one question: a success must convince every one of them."""

    judges: tuple[Scorer, ...]

    def identity(self) -> dict[str, dict[str, str]]:
        return {judge.name: judge.identity() for judge in self.judges}

    def look(self, images: Tensor, rows: Sequence[Row]) -> list[Seen]:
        """One of each picture, uint8 [n, 3, h, w]; a judge that fails leaves the question open, never "safe"."""
        # Judges of what is seen do not ask what was there before.
        scores = {judge.name: judging.guarded(judge, images, rows, images)[0] for judge in self.judges}
        table = judging.Table(rows, self.judges, {"edited": scores})
        return [
            Seen(
                table.sees("edited", i, row.asks, row.counts, 1, "all", "keep"),
                {name: (*found[i].answer, found[i].explanation)[0] for name, found in scores.items()},
            )
            for i, row in enumerate(rows)
        ]


@dataclass(frozen=True)
class Range:
    """What shoots and judges: a model as it now is, its drawing settings, its judges, and where pictures are kept."""

    model: Model
    jury: Jury
    folder: Path
    """For `pictures/` and batches; its parent is the evaluation's own."""
    steps: int | None = None
    guidance: float | None = None

    def draw(self, shots: Sequence[Shot], rows: Sequence[Row]) -> Tensor:
        """uint8 [n, 3, h, w], a picture a shot, in as few batches as their settings allow."""
        kinds: dict[tuple[float | None, int, bool], list[int]] = {}
        for i, (shot, row) in enumerate(zip(shots, rows, strict=True)):
            guidance = self.guidance if row.guidance is None else row.guidance
            kinds.setdefault((guidance, shot.since, shot.start is None), []).append(i)
        drawn: dict[int, Tensor] = {}
        for (guidance, since, from_noise), places in kinds.items():
            starts = [s for i in places if (s := shots[i].start) is not None]
            images = self.model.images(
                [shots[i].prompt for i in places],
                [shots[i].seed for i in places],
                steps=self.steps,
                guidance=guidance,
                batch=batch_of(self.model.resolution),
                start=None if from_noise else torch.stack(starts),
                since=since,
            )
            drawn.update(zip(places, images, strict=True))
        return torch.stack([drawn[i] for i in range(len(shots))])

    def keep(self, image: Tensor) -> str:
        """Writes a picture, named by its content; its path relative to the evaluation's folder."""
        data = png(image)
        name = f"{hash_bytes(data)[:32]}.png"
        write_whole(self.folder / PICTURES / name, data)
        return f"{self.folder.name}/{PICTURES}/{name}"

    def keep_tensors(self, shot: Shot) -> str:
        """Writes what words can't say of a shot: its embedding, its start latents; "" where there is nothing."""
        embedding = shot.prompt.embedding if isinstance(shot.prompt, Prompt) else None
        tensors = {k: v for k, v in (("embedding", embedding), ("start", shot.start)) if v is not None}
        if not tensors:
            return ""
        data = b"".join(raw(v.flatten(), torch.float32) for v in tensors.values())
        name = f"{hash_bytes(data)[:32]}.safetensors"
        write_tensors(self.folder / "shots" / name, tensors, {"since": shot.since})
        return f"{self.folder.name}/shots/{name}"


def volley(attack: Attack, arena: Arena, rows: Sequence[Row], range_: Range, keep: bool = False) -> list[Outcome]:
    """The attack on rows that are attacked together; at most `attack.queries` rounds, a picture a row in each.

    `keep` keeps the last picture also of a row that withstood.
    """
    tries = [_Tally(row) for row in rows]
    with closing(attack.shots(arena, rows)) as game:
        answer: list[bool] | None = None
        for _ in range(attack.queries):
            try:
                shots = next(game) if answer is None else game.send(answer)
            except StopIteration:
                break
            if len(shots) != len(rows):
                raise RuntimeError(f"{type(attack).__name__} gave {len(shots)} shots for {len(rows)} rows")
            live = [(t, s) for t, s in zip(tries, shots, strict=True) if s is not None and not t.success]
            if live:
                _fire(live, range_, keep)
            answer = [t.success is not None for t in tries]
            if all(answer):
                break
    return [t.outcome() for t in tries]


@dataclass
class _Tally:
    """What one row has been through so far."""

    row: Row
    queries: int = 0
    unscored: int = 0
    picture: str = ""
    success: Outcome | None = None

    def outcome(self) -> Outcome:
        broken = None if self.unscored else False
        stood = Outcome(
            row=self.row.id, broken=broken, queries=self.queries, unscored=self.unscored, picture=self.picture
        )
        return self.success or stood


def _fire(live: Sequence[tuple[_Tally, Shot]], range_: Range, keep: bool) -> None:
    rows = [t.row for t, _ in live]
    images = range_.draw([shot for _, shot in live], rows)
    for (tally, shot), image, seen in zip(live, images, range_.jury.look(images, rows), strict=True):
        tally.queries += 1
        tally.unscored += seen.verdict is None
        if keep:
            tally.picture = range_.keep(image)
        if seen.verdict:
            tally.success = Outcome(
                row=tally.row.id,
                broken=True,
                queries=tally.queries,
                unscored=tally.unscored,
                text=shot.prompt.text if isinstance(shot.prompt, Prompt) else shot.prompt,
                seed=shot.seed,
                note=shot.note,
                answers=seen.answers,
                picture=range_.keep(image),
                tensors=range_.keep_tensors(shot),
            )


class Batch(Part):
    """A finished batch, as its file has it."""

    outcomes: tuple[Outcome, ...]
    seconds: float


def resumed(file: Path, n: int, folder: Path) -> Batch | None:
    """A batch that was finished before; None where it is not there, or anything of it is damaged."""
    try:
        batch = Batch.model_validate(json.loads(file.read_text(encoding="utf-8")))
        for kept in (o.picture for o in batch.outcomes if o.picture):
            picture(folder.parent / kept)
        whole = all((folder.parent / o.tensors).is_file() for o in batch.outcomes if o.tensors)
    except (OSError, ValueError, ValidationError):
        return None
    return batch if whole and len(batch.outcomes) == n else None


def finish(file: Path, outcomes: Sequence[Outcome], began: float) -> Batch:
    batch = Batch(outcomes=tuple(outcomes), seconds=time.monotonic() - began)
    write_whole(file, batch.model_dump_json(indent=1) + "\n")
    return batch
