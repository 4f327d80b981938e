"""How the work around a network grows with how much is asked: targets, rows, edits, attacked rows.

`python -m benchmarks.growth` calls this for these axes. The network draws nothing here, because its time is
proportional to the number of pictures. Black pictures stand for drawn ones, and the judge sees in each what it is asked
for.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any, ClassVar

import torch
from torch import Tensor

from efface import attacks, methods
from efface.concept import Erasure
from efface.edits.edit import Edit, apply
from efface.evaluation.images import VARIANTS, ImageSet, make_chunk_key, plan_chunks
from efface.evaluation.judging import ScoreTable
from efface.evaluation.metrics import measure_groups
from efface.evaluation.rows_table import read_rows, write_rows
from efface.models.base import Model
from efface.records.report import Drawing
from efface.robustness.campaign import Campaign, attack
from efface.scorers.base import Better, Score
from efface.suites.spec import GroupSpec, Row, Suite, SuiteSpec

TARGETS, ROWS, EDITS, ATTACKED = (
    (1, 5, 20, 100, 500),
    (250, 1000, 4000, 20_000, 100_000),
    (1, 5, 20, 50),
    (4, 20, 100, 400),
)
POINTS: Mapping[str, Sequence[int]] = {"targets": TARGETS, "rows": ROWS, "edits": EDITS, "attack rows": ATTACKED}
GROUPS = (
    GroupSpec("target", "labels", "erase", "object", 3, "cats"),
    GroupSpec("others", "labels", "keep", "object", 3, "dogs"),
)
OWN = SuiteSpec("own", "1", "", "", "", "labels", GROUPS)
CAT = Row("t", "a cat", 0, "target", "erase", "object", "cat", ("cat",), thing="cat")
DOG = Row("o", "a dog", 0, "others", "keep", "object", "dog", ("dog",), thing="dog")


@dataclass(frozen=True)
class Seer:
    """A judge that sees in white pictures what was asked for, and a stone in black ones."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "seen"
    unit: ClassVar[str] = "of 1"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = False
    question: str = "object"
    name: str = "object-seer"
    labels: tuple[str, ...] = ("cat", "dog", "stone")

    def identify(self) -> dict[str, str]:
        return {"scorer": "seer", "version": self.version}

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        seen = [bool(image[0, 0, 0]) for image in images]
        return [Score(float(s), (row.thing if s else "stone",)) for s, row in zip(seen, rows, strict=True)]


def measure(axis: str, n: int, model: Model) -> float:
    """Measures the processor seconds of the work at this point of an axis, in which other work on the machine does not
    count."""
    work: Mapping[str, Callable[[int, Model], Callable[[], object]]] = {
        "targets": erase_targets,
        "rows": count_rows,
        "edits": apply_edits,
        "attack rows": attack_rows,
    }
    ready = work[axis](n, model)
    began = process_time()
    ready()
    return process_time() - began


def fit_growth(points: Sequence[tuple[float, float]]) -> float:
    """Fits the p of seconds ~ n^p by least squares in logarithms over the last three points, where fixed costs matter
    least."""
    logs = [(math.log(n), math.log(seconds)) for n, seconds in points[-3:]]
    x, y = (sum(side) / len(logs) for side in zip(*logs, strict=True))
    return sum((a - x) * (b - y) for a, b in logs) / sum((a - x) ** 2 for a, _ in logs)


def erase_targets(n: int, model: Model) -> Callable[[], object]:
    """Erases n targets by UCE."""
    method = methods.build_method("uce", model, {})
    model.fingerprint()
    return lambda: method.fit(model, Erasure(tuple(f"thing{i}" for i in range(n))))


def count_rows(n: int, model: Model) -> Callable[[], object]:
    """Goes from a list of n rows to its chunks and their names, and from scores to rates and to a table that is
    read."""
    rows = [dataclasses.replace((CAT, DOG)[i % 2], id=str(i), seed=i, guidance=1 + i % 40 / 8) for i in range(n)]
    scores = [Score(1.0, (row.thing if i % 3 else "stone",)) for i, row in enumerate(rows)]

    def work() -> None:
        for how, part in plan_chunks(rows, describe_model_drawing(model)):
            make_chunk_key(part, how)
        table = ScoreTable(rows, [Seer()], {variant: {"object-seer": scores} for variant in VARIANTS})
        measure_groups(table, Suite(OWN, ("cat",), tuple(rows)))
        with tempfile.TemporaryDirectory() as name:
            paths = {variant: {row.id: f"a/{row.id}.png" for row in rows} for variant in VARIANTS}
            write_rows(Path(name) / "rows.parquet", ImageSet(rows, paths, Path(name), model.resolution), table)
            assert len(read_rows(Path(name))) == 2 * n

    return work


def apply_edits(n: int, model: Model) -> Callable[[], object]:
    """Puts n edits of all keys and values in place, and takes them away."""
    names = [name for name in model.weights if "attn2.to_k" in name or "attn2.to_v" in name]
    meta = {"method": "ESD", "arguments": {}, "request": {"targets": ["cat"]}, "base": model.fingerprint()}
    edits = [Edit({name: model.weights[name] + 1e-3 * (1 + i) for name in names}, dict(meta)) for i in range(n)]

    def work() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # all change the same weights
            with apply(model, edits):
                pass

    return work


def attack_rows(n: int, model: Model) -> Callable[[], object]:
    """Attacks n rows of a target by other seeds, with controls and reference pictures."""
    names = [name for name in model.weights if "attn2.to_k" in name][:1]
    meta = {"method": "ESD", "arguments": {"steps": 1}, "request": {"targets": ["cat"], "anchor": "", "keep": []}}
    values = {name: model.weights[name] + 1e-3 for name in names}
    edit = Edit(values, {**meta, "model": model.name, "base": model.fingerprint()})
    rows = [dataclasses.replace((CAT, DOG)[i % 2], id=str(i), seed=i) for i in range(2 * n)]
    suite, original = Suite(OWN, ("cat",), tuple(rows)), model.weights[names[0]]

    def images(prompts: Sequence[Any], seeds: Sequence[int], **_: Any) -> Tensor:
        """Returns white pictures where the base draws or a dog is asked for, and black ones under the edit."""
        edited = model.weights[names[0]] is not original
        shown = [255 * (not edited or "dog" in str(prompt)) for prompt in prompts]
        return torch.tensor(shown, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 16, 16).clone()

    def work() -> None:
        made = attacks.build_attack("seeds", model.name, "8")
        with tempfile.TemporaryDirectory() as name:
            file = edit.save(Path(name) / "edit.safetensors")
            before = model.images
            setattr(model, "images", images)  # noqa: B010
            try:
                attack(model, file, suite, [Seer()], Path(name) / "out", [made], campaign=Campaign(n, 16))
            finally:
                setattr(model, "images", before)  # noqa: B010

    return work


def describe_model_drawing(model: Model) -> Drawing:
    """Describes a drawing at the model's own settings."""
    facts = {"edit": "", "strength": 1.0, "scheduler": "DDIMScheduler", "dtype": "float32", "compute": "float32"}
    return Drawing(
        model=model.name,
        fingerprint={},
        decoder="",
        steps=model.defaults.steps,
        guidance=model.defaults.guidance,
        resolution=model.resolution,
        **facts,  # type: ignore[arg-type]
    )
