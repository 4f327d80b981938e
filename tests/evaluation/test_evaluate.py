"""The pipe from suite to report.json: resumable, drawn once, judged honestly."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from efface.edits.edit import Edit
from efface.evaluation.evaluate import Settings, describe_drawing, evaluate
from efface.evaluation.images import ImageSet, load_images
from efface.evaluation.judging import score_images
from efface.models.adapters.sd import StableDiffusion
from efface.records.basis import require_comparable
from efface.records.report import Estimate, Record, read_report
from efface.robustness.campaign import attack
from efface.scorers.base import Better, Score
from efface.suites.spec import Row, Suite
from judging_fixtures import JUDGES, Planted, edit_of


@pytest.fixture(scope="module")
def done(model: StableDiffusion, suite: Suite, edit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done")
    evaluate(model, edit, suite, JUDGES, out)
    return out


class Killed(BaseException):
    pass


def test_the_report_says_everything_its_numbers_depend_on(done: Path, suite: Suite, model: StableDiffusion) -> None:
    record = read_report(done)
    assert record.targets == ("cat",) and record.method == "ESD" and record.rows == len(suite.rows)
    assert record.drawing.fingerprint == model.fingerprint() and len(record.drawing.edit) == 64
    assert (record.drawing.steps, record.drawing.guidance, record.drawing.dtype) == (2, 2.0, "float32")
    assert set(record.scorers) == {"object-planted", "object-second", "style-planted"}
    assert record.packages["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert record.headlines == ("esr1/target", "psr1/neighbour", "psr1/unseen")
    for m in record.measures:
        assert m.base.n + m.base.unscored == m.edited.n + m.edited.unscored > 0
        assert m.base.low <= (m.base.value or 0) <= m.base.high
    assert {m.judge for m in record.measures} == {"all", "object-planted", "object-second"}
    assert record.find("psr1", "beside") and record.find("style1", "unseen")
    assert record.find("psr5", "unseen")


def test_rows_are_a_line_a_picture_and_every_picture_is_where_they_say(done: Path, suite: Suite) -> None:
    lines = pq.read_table(done / "rows.parquet").to_pylist()
    assert len(lines) == 2 * len(suite.rows)
    assert all((done / "images" / line["picture"]).is_file() for line in lines)
    first = [line for line in lines if line["id"] == suite.rows[0].id]
    assert {line["variant"] for line in first} == {"base", "edited"}
    assert len({line["picture"] for line in first}) == 2


@pytest.mark.parametrize(
    "stop", [("drawing the base", 64), ("drawing under the edit", 64), ("judging", 64), ("judging", 200)]
)
def test_killed_anywhere_and_run_again_the_report_is_the_same(
    stop: tuple[str, int], done: Path, model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path
) -> None:
    def kill(stage: str, n: int, total: int) -> None:
        if stage == stop[0] and n >= stop[1]:
            raise Killed

    with pytest.raises(Killed):
        evaluate(model, edit, suite, JUDGES, tmp_path, on_progress=kill)
    assert not (tmp_path / "report.json").exists()
    evaluate(model, edit, suite, JUDGES, tmp_path)
    for name in ("report.json", "rows.parquet"):
        assert (tmp_path / name).read_bytes() == (done / name).read_bytes()


def test_a_finished_evaluation_draws_and_judges_nothing_again(
    done: Path, model: StableDiffusion, suite: Suite, edit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (done / "report.json").read_bytes()
    monkeypatch.setattr(StableDiffusion, "images", refuse)
    monkeypatch.setattr(Planted, "score", refuse)
    evaluate(model, edit, suite, JUDGES, done)
    assert (done / "report.json").read_bytes() == before


def test_scoring_again_with_other_scorers_draws_nothing(
    done: Path, model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StableDiffusion, "images", refuse)
    record = evaluate(model, edit, suite, [Planted(name="object-new")], tmp_path, image_store=done / "images")
    assert set(record.scorers) == {"object-new"}


def refuse(*_: object, **__: object) -> Tensor:
    raise AssertionError("should not have been asked")


@pytest.mark.parametrize("damage", [b"", b"not a picture"])
def test_a_damaged_picture_is_drawn_again(
    damage: bytes, model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path
) -> None:
    evaluate(model, edit, suite, JUDGES, tmp_path)
    report, file = (tmp_path / "report.json").read_bytes(), next((tmp_path / "images").rglob("*.png"))
    whole = file.read_bytes()
    file.write_bytes(damage)
    evaluate(model, edit, suite, JUDGES, tmp_path)
    assert file.read_bytes() == whole and (tmp_path / "report.json").read_bytes() == report


def test_a_scorer_that_raises_gives_none_is_counted_and_alarms(
    model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path, done: Path
) -> None:
    judges = [Planted(fails_on="cat")]
    record = evaluate(model, edit, suite, judges, tmp_path, image_store=done / "images")
    target, other = record.find("esr1", "target"), record.find("psr1", "unseen")
    assert target and target.edited == Estimate(value=None, low=0, high=1, n=0, unscored=12)
    assert other and other.edited.unscored == 0
    assert "too many pictures unscored" in [a.name for a in record.alarms]
    line = next(x for x in pq.read_table(tmp_path / "rows.parquet").to_pylist() if x["thing"] == "cat")
    assert line["object-planted.value"] is None and "no cat, please" in line["object-planted.explanation"]
    mended = evaluate(model, edit, suite, [Planted()], tmp_path, image_store=done / "images")
    assert (found := mended.find("esr1", "target")) and found.edited.unscored == 0


def test_either_judge_convicts_and_both_must_acquit(
    model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path
) -> None:
    """One judge sees what was asked for, the other never does."""
    record = evaluate(model, edit, suite, [Planted(), Blind()], tmp_path)
    gone, kept = record.find("esr1", "target"), record.find("psr1", "unseen")
    assert gone and gone.edited.value == 0
    assert kept and kept.edited.value == 0
    alone = record.find("esr1", "target", "object-blind")
    assert alone and alone.edited.value == 1


@dataclass(frozen=True)
class Blind:
    """A judge that never sees what it was asked for."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "never seen"
    unit: ClassVar[str] = "of 1"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = False
    question: str = "object"
    name: str = "object-blind"

    def identify(self) -> dict[str, str]:
        return {"scorer": "blind"}

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        return [Score(0.0, tuple(f"x{i}" for i in range(6)))] * len(rows)


def test_another_protocol_in_the_same_folder_is_refused_with_the_difference(
    done: Path, model: StableDiffusion, suite: Suite, edit: Path
) -> None:
    with pytest.raises(ValueError, match=r"another evaluation \(drawing.steps: 2 before, 3 now\)"):
        evaluate(model, edit, suite, JUDGES, done, Settings(steps=3))


def test_the_drawing_says_sampler_and_dtype_and_mixes_none(
    done: Path, model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = Settings(sampler="unipc")
    with pytest.raises(ValueError, match=r"drawing.scheduler: '\w+' before, 'UniPCMultistepScheduler' now"):
        evaluate(model, edit, suite, JUDGES, done, how)
    asked: list[str] = []
    images = model.images
    monkeypatch.setattr(model, "images", lambda *a, sampler, **k: (asked.append(sampler), images(*a, **k))[1])
    assert evaluate(model, edit, suite, JUDGES, tmp_path, how).drawing.scheduler == "UniPCMultistepScheduler"
    assert set(asked) == {"unipc"}
    with monkeypatch.context() as patch:
        patch.setattr(model, "dtype", torch.bfloat16)
        assert describe_drawing(model, how, "").dtype == "bfloat16"
        patch.setattr(model, "steady", set())
        assert describe_drawing(model, how, "").compute == "bfloat16, compiled"
    with pytest.raises(ValueError, match="own scheduler, not by unipc: leave out --sampler"):
        attack(model, edit, suite, JUDGES, tmp_path, [], settings=how)


def test_evaluations_made_in_different_ways_are_not_compared(done: Path) -> None:
    record = read_report(done)
    drawing = record.drawing.model_copy(update={"edit": "0" * 64, "strength": 0.5})
    other = record.model_copy(update={"drawing": drawing, "method": "UCE"})
    require_comparable(record, other)
    elsewhere = other.model_copy(update={"targets": ("apple",), "rows_digest": "x"})
    require_comparable(record, elsewhere)
    longer = other.model_copy(update={"drawing": drawing.model_copy(update={"steps": 3})})
    with pytest.raises(ValueError, match=r"ESD on cat and UCE on cat .* \(drawing.steps: 2 before, 3 now\)"):
        require_comparable(record, longer)
    with pytest.raises(ValueError, match=r"rows: .* now"):
        require_comparable(record, other.model_copy(update={"rows_digest": "x"}))
    newer = other.model_copy(update={"suite": record.suite.model_copy(update={"version": "9"})})
    with pytest.raises(ValueError, match=r"suite.version: .* before, '9' now"):
        require_comparable(record, newer)
    with pytest.raises(ValueError, match=r"scorers.object-planted.version"):
        scorers = {**record.scorers, "object-planted": {**record.scorers["object-planted"], "version": "2"}}
        require_comparable(record, other.model_copy(update={"scorers": scorers}))


@dataclass(frozen=True)
class Shift:
    """Says how many of a picture's pixels differ from the base's."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "pixel distance from the base"
    unit: ClassVar[str] = "values"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = False
    question: str = "change"
    name: str = "shift"

    def identify(self) -> dict[str, str]:
        return {"scorer": "pixels", "version": "1"}

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        return [Score(float((a != b).sum())) for a, b in zip(images, before, strict=True)]


def test_scorers_see_the_bases_picture_of_the_same_row_and_are_asked_again_where_it_changed(
    done: Path, model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path
) -> None:
    record = evaluate(model, edit, suite, [Shift()], tmp_path, image_store=done / "images")
    lines = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    image_store = {line["id"]: {} for line in lines}
    for line in lines:
        image_store[line["id"]][line["variant"]] = line
    for both in image_store.values():
        shown = [load_images(done / "images", [both[variant]["picture"]]) for variant in ("base", "edited")]
        assert both["base"]["shift.value"] == 0
        assert both["edited"]["shift.value"] == float((shown[0] != shown[1]).sum()) > 0
    paths = {w: {i: both[w]["picture"] for i, both in image_store.items()} for w in ("base", "edited")}
    images = ImageSet(suite.rows, paths, done / "images", 16)
    cache = tmp_path / "scores"
    assert score_images(Shift(), images, "edited", cache) == score_images(Shift(), images, "edited", cache)
    itself = dataclasses.replace(images, paths={**paths, "base": paths["edited"]})
    assert {s.value for s in score_images(Shift(), itself, "edited", cache)} == {0}
    assert record.find("pixels", "target")


def test_what_the_fitting_noted_and_took_stands_in_the_report(
    done: Path, model: StableDiffusion, suite: Suite, tmp_path: Path
) -> None:
    assert read_report(done).history == {} and read_report(done).cost == {}
    path = edit_of(model, tmp_path / "cat.safetensors", scale=1.2)
    plain = Edit.load(path)
    notes = {"candidates": {"cat": ["tiger"]}, "chosen": [["tiger", 3]]}
    Edit(plain.values, {**plain.meta, "notes": notes, "cost": {"seconds": 1.5}}).save(path)
    record = evaluate(model, path, suite, JUDGES, tmp_path / "out")
    assert record.history == notes and record.cost == {"seconds": 1.5} == read_report(tmp_path / "out").cost


def test_unknown_versions_and_damaged_reports_are_refused(done: Path, tmp_path: Path) -> None:
    data = json.loads((done / "report.json").read_text())
    with pytest.raises(FileNotFoundError, match="no report"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps(data | {"version": 99}))
    with pytest.raises(ValueError, match="of version 99"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text('{"version": 2}')
    with pytest.raises(ValueError, match="damaged"):
        read_report(tmp_path)
    assert Record.model_validate(data) == read_report(done)


def test_success_is_stored_in_the_row_and_the_report_counts_it(done: Path) -> None:
    record, lines = read_report(done), pq.read_table(done / "rows.parquet").to_pylist()
    for m in [m for m in record.measures if m.metric in ("esr1", "psr1") and m.judge == "all"]:
        for variant, number in (("base", m.base), ("edited", m.edited)):
            stored = [x["success"] for x in lines if (x["group"], x["variant"]) == (m.group, variant)]
            assert (number.n, number.unscored) == (len(stored) - stored.count(None), stored.count(None))
            assert number.value == stored.count(True) / number.n
    field = pq.read_schema(done / "rows.parquet").field("object-planted.value")
    assert field.metadata[b"title"] == b"seen" and field.metadata[b"better"] == b"higher"
