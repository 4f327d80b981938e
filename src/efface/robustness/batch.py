"""Runs one attack on one batch of rows: draws its candidates, judges them, and stops each row at its first success.

A finished batch is one JSON file, which is named by the digest of everything on which it depends, so that an
interrupted run loses only its current batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..attacks.base import Attack, AttackContext, Candidate, propose_within_budget
from ..concept import Prompt
from ..evaluation import judging
from ..evaluation.asking import ScorerWatch
from ..evaluation.images import encode_png, read_image
from ..files import hash_bytes, write_tensors, write_whole
from ..functional.adversary import NoGradient, NotFinite
from ..models.base import Model
from ..models.fingerprint import to_bytes
from ..models.pictures import NoNumbers
from ..models.trajectory import choose_image_batch
from ..origin import describe_scorer, identify
from ..records.attack_files import read_batch
from ..records.attacks import Batch, RowResult
from ..scorers.base import Scorer
from ..suites.spec import Row

PICTURES = "pictures"


@dataclass(frozen=True)
class Judgement:
    """The judges' answers for one picture."""

    verdict: bool | None
    """Whether the concept is every judge's first answer."""
    answers: dict[str, str]
    """The first answer of each judge."""


@dataclass(frozen=True)
class JudgePanel:
    """The judges of one question: a success must convince every one of them."""

    judges: tuple[Scorer, ...]
    watch: ScorerWatch = field(default_factory=ScorerWatch, compare=False)
    """Ends calls of a judge that take too long; the picture is then unscored."""

    def identify(self) -> dict[str, dict[str, str]]:
        """What their answers depend on, by name."""
        return {judge.name: identify(judge) for judge in self.judges}

    def describe(self) -> dict[str, dict[str, str]]:
        """The same for a record, with the packages that bring them."""
        return {judge.name: describe_scorer(judge) for judge in self.judges}

    def look(self, images: Tensor, rows: Sequence[Row]) -> list[Judgement]:
        """Judges pictures, uint8 [n, 3, h, w], one judgement for each; where a judge fails, the verdict is None."""
        # Judges of what is seen do not ask what was there before.
        scores = {j.name: judging.score_safely(j, images, rows, images, self.watch)[0] for j in self.judges}
        table = judging.ScoreTable(rows, self.judges, {"edited": scores})
        return [
            Judgement(
                table.shows("edited", i, judging.Sought(row.asks, row.counts, every=True)),
                {name: (*found[i].answer, found[i].explanation)[0] for name, found in scores.items()},
            )
            for i, row in enumerate(rows)
        ]


@dataclass(frozen=True)
class ImageJudge:
    """Draws and judges: a model in its present state, its settings, its judges, and the folder of pictures."""

    model: Model
    judges: JudgePanel
    folder: Path
    """The folder of `pictures/` and batches; its parent is the evaluation's folder."""
    steps: int | None = None
    guidance: float | None = None

    def draw(self, candidates: Sequence[Candidate], rows: Sequence[Row]) -> Tensor:
        """Draws uint8 [n, 3, h, w], a picture for each candidate, in as few batches as their settings allow.

        Raises:
            NoNumbers: some pictures came out as NaN or infinite numbers.
        """
        kinds: dict[tuple[int, bool], list[int]] = {}
        for i, candidate in enumerate(candidates):
            kinds.setdefault((candidate.since, candidate.start is None), []).append(i)
        drawn: dict[int, Tensor] = {}
        lost: list[int] = []
        for (since, from_noise), places in kinds.items():
            starts = [s for i in places if (s := candidates[i].start) is not None]
            try:
                images = self.model.images(
                    [candidates[i].prompt for i in places],
                    [candidates[i].seed for i in places],
                    steps=self.steps,
                    guidance=[self.guidance if rows[i].guidance is None else rows[i].guidance for i in places],
                    batch=choose_image_batch(self.model.resolution),
                    start=None if from_noise else torch.stack(starts),
                    since=since,
                )
            except NoNumbers as error:
                images = error.pictures
                lost += [places[i] for i in error.lost]
            drawn.update(zip(places, images, strict=True))
        pictures = torch.stack([drawn[i] for i in range(len(candidates))])
        if lost:
            raise NoNumbers(pictures, lost)
        return pictures

    def draw_and_look(self, candidates: Sequence[Candidate], rows: Sequence[Row]) -> tuple[Tensor, list[Judgement]]:
        """Draws the candidates, uint8 [n, 3, h, w], and judges them; NaN or infinite pictures get no verdict."""
        lost: Sequence[int] = ()
        try:
            images = self.draw(candidates, rows)
        except NoNumbers as error:
            images, lost = error.pictures, error.lost
        seen = self.judges.look(images, rows)
        return images, [Judgement(None, {}) if i in lost else said for i, said in enumerate(seen)]

    def keep(self, image: Tensor) -> str:
        """Writes a picture, named by its content; returns its path relative to the evaluation's folder."""
        data = encode_png(image)
        name = f"{hash_bytes(data)[:32]}.png"
        write_whole(self.folder / PICTURES / name, data)
        return f"{self.folder.name}/{PICTURES}/{name}"

    def keep_tensors(self, candidate: Candidate) -> str:
        """Writes a candidate's embedding and start latents, and returns the path; "" where it has none."""
        embedding = candidate.prompt.embedding if isinstance(candidate.prompt, Prompt) else None
        tensors = {k: v for k, v in (("embedding", embedding), ("start", candidate.start)) if v is not None}
        if not tensors:
            return ""
        data = b"".join(to_bytes(v.flatten(), torch.float32) for v in tensors.values())
        name = f"{hash_bytes(data)[:32]}.safetensors"
        write_tensors(self.folder / "shots" / name, tensors, {"since": candidate.since})
        return f"{self.folder.name}/shots/{name}"


@dataclass(frozen=True)
class BatchOutcome:
    """The results of one batch of rows."""

    row_results: tuple[RowResult, ...]
    """One for each row; if the attack ended early, only those of rows that it tried."""
    error: NoGradient | NotFinite | None = None
    """Why the attack ended before its budget was spent; None where it did not."""


def run_batch(attack: Attack, context: AttackContext, rows: Sequence[Row], image_judge: ImageJudge) -> BatchOutcome:
    """Attacks rows together: each round draws a picture for every row that is not broken yet.

    If the attack loses its gradient, or its loss is no number, what it broke before counts, and whether it would have
    broken the other rows is not known.
    """
    states = [_RowState(row) for row in rows]
    with closing(propose_within_budget(attack, context, rows)) as rounds:
        try:
            candidates = next(rounds, None)
            while candidates is not None:
                live = [(s, c) for s, c in zip(states, candidates, strict=True) if c is not None and not s.success]
                if live:
                    _draw_and_judge(live, image_judge, attack.keeps_images)
                candidates = rounds.send([state.success is not None for state in states])
        except StopIteration:
            pass
        except (NoGradient, NotFinite) as error:
            tried = [state.success or replace(state, cut=True).to_result() for state in states if state.queries]
            return BatchOutcome(tuple(tried), error)
    return BatchOutcome(tuple(state.to_result() for state in states))


@dataclass
class _RowState:
    """The state of one row in an attack."""

    row: Row
    queries: int = 0
    unscored: int = 0
    picture: str = ""
    success: RowResult | None = None
    cut: bool = False
    """Whether the attack ended before its budget was spent on this row."""

    def to_result(self) -> RowResult:
        broken = None if self.unscored or self.cut else False
        stood = RowResult(
            row=self.row.id, broken=broken, queries=self.queries, unscored=self.unscored, picture=self.picture
        )
        return self.success or stood


def _draw_and_judge(live: Sequence[tuple[_RowState, Candidate]], image_judge: ImageJudge, keep: bool) -> None:
    rows = [t.row for t, _ in live]
    images, judged = image_judge.draw_and_look([candidate for _, candidate in live], rows)
    for (state, candidate), image, seen in zip(live, images, judged, strict=True):
        state.queries += 1
        state.unscored += seen.verdict is None
        if keep:
            state.picture = image_judge.keep(image)
        if seen.verdict:
            state.success = RowResult(
                row=state.row.id,
                broken=True,
                queries=state.queries,
                unscored=state.unscored,
                text=candidate.prompt.text if isinstance(candidate.prompt, Prompt) else candidate.prompt,
                seed=candidate.seed,
                note=candidate.note,
                answers=seen.answers,
                picture=image_judge.keep(image),
                tensors=image_judge.keep_tensors(candidate),
            )


def resume(file: Path, n: int, folder: Path) -> Batch | None:
    """Reads a finished batch of n rows; None where it is missing, or a part of it is damaged."""
    batch = read_batch(file)
    if batch is None or len(batch.row_results) != n:
        return None
    try:
        for kept in (row.picture for row in batch.row_results if row.picture):
            read_image(folder.parent / kept)
    except (OSError, ValueError):
        return None
    whole = all((folder.parent / row.tensors).is_file() for row in batch.row_results if row.tensors)
    return batch if whole else None


def write_batch(file: Path, batch: Batch) -> Batch:
    """Writes a finished batch, whole or not at all."""
    write_whole(file, batch.model_dump_json(indent=1) + "\n")
    return batch
