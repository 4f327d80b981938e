"""One attack on one batch of rows: draw its shots, ask the judges, stop each row at its first success.

A finished batch is one JSON file, named by the digest of everything that it depends on, so that an interrupted run
loses the batch it was in and no more.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from ..attacks.base import Attack, AttackContext, Candidate
from ..concept import Prompt
from ..evaluation import judging
from ..evaluation.images import batch_of, picture, png
from ..files import write_tensors
from ..models.base import Model
from ..models.fingerprint import raw
from ..records.attacks import RowResult
from ..records.report import Part, write_whole
from ..scorers.base import Scorer
from ..suites.spec import Row

PICTURES = "pictures"


@dataclass(frozen=True)
class Judgement:
    """What the judges said of one picture."""

    verdict: bool | None
    """Whether all of them see the concept first of all."""
    answers: dict[str, str]
    """The first answer of each."""


@dataclass(frozen=True)
class JudgePanel:
    """The judges of one question: a success must convince every one of them."""

    judges: tuple[Scorer, ...]

    def identity(self) -> dict[str, dict[str, str]]:
        return {judge.name: judge.identity() for judge in self.judges}

    def look(self, images: Tensor, rows: Sequence[Row]) -> list[Judgement]:
        """One of each picture, uint8 [n, 3, h, w]; a judge that fails leaves the question open, never "safe"."""
        # Judges of what is seen do not ask what was there before.
        scores = {judge.name: judging.guarded(judge, images, rows, images)[0] for judge in self.judges}
        table = judging.Table(rows, self.judges, {"edited": scores})
        return [
            Judgement(
                table.sees("edited", i, row.asks, row.counts, 1, "all", "keep"),
                {name: (*found[i].answer, found[i].explanation)[0] for name, found in scores.items()},
            )
            for i, row in enumerate(rows)
        ]


@dataclass(frozen=True)
class ImageJudge:
    """What shoots and judges: a model as it now is, its drawing settings, its judges, and where pictures are kept."""

    model: Model
    judges: JudgePanel
    folder: Path
    """For `pictures/` and batches; its parent is the evaluation's own."""
    steps: int | None = None
    guidance: float | None = None

    def draw(self, candidates: Sequence[Candidate], rows: Sequence[Row]) -> Tensor:
        """uint8 [n, 3, h, w], a picture a shot, in as few batches as their settings allow."""
        kinds: dict[tuple[float | None, int, bool], list[int]] = {}
        for i, (candidate, row) in enumerate(zip(candidates, rows, strict=True)):
            guidance = self.guidance if row.guidance is None else row.guidance
            kinds.setdefault((guidance, candidate.since, candidate.start is None), []).append(i)
        drawn: dict[int, Tensor] = {}
        for (guidance, since, from_noise), places in kinds.items():
            starts = [s for i in places if (s := candidates[i].start) is not None]
            images = self.model.images(
                [candidates[i].prompt for i in places],
                [candidates[i].seed for i in places],
                steps=self.steps,
                guidance=guidance,
                batch=batch_of(self.model.resolution),
                start=None if from_noise else torch.stack(starts),
                since=since,
            )
            drawn.update(zip(places, images, strict=True))
        return torch.stack([drawn[i] for i in range(len(candidates))])

    def keep(self, image: Tensor) -> str:
        """Writes a picture, named by its content; its path relative to the evaluation's folder."""
        data = png(image)
        name = f"{hashlib.sha256(data).hexdigest()[:32]}.png"
        write_whole(self.folder / PICTURES / name, data)
        return f"{self.folder.name}/{PICTURES}/{name}"

    def keep_tensors(self, candidate: Candidate) -> str:
        """Writes what words can't say of a shot: its embedding, its start latents; "" where there is nothing."""
        embedding = candidate.prompt.embedding if isinstance(candidate.prompt, Prompt) else None
        tensors = {k: v for k, v in (("embedding", embedding), ("start", candidate.start)) if v is not None}
        if not tensors:
            return ""
        data = b"".join(raw(v.flatten(), torch.float32) for v in tensors.values())
        name = f"{hashlib.sha256(data).hexdigest()[:32]}.safetensors"
        write_tensors(self.folder / "shots" / name, tensors, {"since": candidate.since})
        return f"{self.folder.name}/shots/{name}"


def run_batch(
    attack: Attack, context: AttackContext, rows: Sequence[Row], image_judge: ImageJudge, keep: bool = False
) -> list[RowResult]:
    """The attack on rows that are attacked together; at most `attack.queries` rounds, a picture a row in each.

    `keep` keeps the last picture also of a row that withstood.
    """
    tries = [_Tally(row) for row in rows]
    with closing(attack.propose(context, rows)) as game:
        answer: list[bool] | None = None
        for _ in range(attack.queries):
            try:
                candidates = next(game) if answer is None else game.send(answer)
            except StopIteration:
                break
            if len(candidates) != len(rows):
                raise RuntimeError(f"{type(attack).__name__} gave {len(candidates)} candidates for {len(rows)} rows")
            live = [(t, s) for t, s in zip(tries, candidates, strict=True) if s is not None and not t.success]
            if live:
                _fire(live, image_judge, keep)
            answer = [t.success is not None for t in tries]
            if all(answer):
                break
    return [t.row_result() for t in tries]


@dataclass
class _Tally:
    """What one row has been through so far."""

    row: Row
    queries: int = 0
    unscored: int = 0
    picture: str = ""
    success: RowResult | None = None

    def row_result(self) -> RowResult:
        broken = None if self.unscored else False
        stood = RowResult(
            row=self.row.id, broken=broken, queries=self.queries, unscored=self.unscored, picture=self.picture
        )
        return self.success or stood


def _fire(live: Sequence[tuple[_Tally, Candidate]], image_judge: ImageJudge, keep: bool) -> None:
    rows = [t.row for t, _ in live]
    images = image_judge.draw([candidate for _, candidate in live], rows)
    for (tally, candidate), image, seen in zip(live, images, image_judge.judges.look(images, rows), strict=True):
        tally.queries += 1
        tally.unscored += seen.verdict is None
        if keep:
            tally.picture = image_judge.keep(image)
        if seen.verdict:
            tally.success = RowResult(
                row=tally.row.id,
                broken=True,
                queries=tally.queries,
                unscored=tally.unscored,
                text=candidate.prompt.text if isinstance(candidate.prompt, Prompt) else candidate.prompt,
                seed=candidate.seed,
                note=candidate.note,
                answers=seen.answers,
                picture=image_judge.keep(image),
                tensors=image_judge.keep_tensors(candidate),
            )


class Batch(Part):
    """A finished batch, as its file has it."""

    row_results: tuple[RowResult, ...]
    seconds: float


def resumed(file: Path, n: int, folder: Path) -> Batch | None:
    """A batch that was finished before; None where it is not there, or anything of it is damaged."""
    try:
        batch = Batch.model_validate(_upgrade(json.loads(file.read_text(encoding="utf-8"))))
        for kept in (o.picture for o in batch.row_results if o.picture):
            picture(folder.parent / kept)
        whole = all((folder.parent / o.tensors).is_file() for o in batch.row_results if o.tensors)
    except (OSError, ValueError, ValidationError):
        return None
    return batch if whole and len(batch.row_results) == n else None


def finish(file: Path, row_results: Sequence[RowResult], began: float) -> Batch:
    batch = Batch(row_results=tuple(row_results), seconds=time.monotonic() - began)
    write_whole(file, batch.model_dump_json(indent=1) + "\n")
    return batch


def _upgrade(data: dict[str, object]) -> dict[str, object]:
    """A batch's contents, of those written before too, which called the rows' results outcomes."""
    return {{"outcomes": "row_results"}.get(key, key): value for key, value in data.items()}
