"""Nothing measured is an error: scorers are tried before anything is drawn, and numbers that are none judge nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from efface.api.publishing import verify
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.evaluation.evaluate import Settings, evaluate
from efface.evaluation.images import ImageSet
from efface.evaluation.judging import score_images, score_safely
from efface.evaluation.trial import Unmeasured, try_scorers
from efface.models.adapters.sd import StableDiffusion
from efface.models.pictures import NoNumbers
from efface.records.report import read_report
from efface.robustness.campaign import attack
from efface.scorers.base import Better, Score
from efface.scorers.classifier import score_labels
from efface.suites.rows import build
from efface.suites.spec import Row, Suite
from efface.suites.world import World
from judging_fixtures import Planted, edit_of, world_model
from report_fixtures import write_attacks


@pytest.fixture(scope="module")
def suite(small: World) -> Suite:
    return build("glyphs-objects", Erasure(("cat",)), small, per_group=4)


@pytest.fixture(scope="module")
def done(model: StableDiffusion, suite: Suite, edit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done")
    evaluate(model, edit, suite, [Planted()], out)
    return out


@dataclass(frozen=True)
class Failing:
    """A scorer that fails, or gives one number, from its n-th call on."""

    version: ClassVar[str] = "1"
    title: ClassVar[str] = "seen"
    unit: ClassVar[str] = "of 1"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = False
    question: str = "object"
    name: str = "object-failing"
    after: int = 0
    """Calls that succeed."""
    number: float | None = None
    """What it gives instead of failing."""
    calls: list[int] = field(default_factory=list)

    def identify(self) -> dict[str, str]:
        return {"scorer": "failing", "version": self.version}

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        self.calls.append(len(rows))
        if len(self.calls) > self.after:
            if self.number is None:
                raise OSError("model.safetensors is cut short")
            return [Score(self.number, ("cat",), "", (self.number,))] * len(rows)
        return [Score(1.0, (row.thing, "x"), "", (0.9, 0.1)) for row in rows]


def refuse(*_: object, **__: object) -> Tensor:
    raise AssertionError("nothing was to be drawn")


@pytest.mark.parametrize("number", [None, float("nan")])
def test_a_judge_that_always_fails_is_refused_before_anything_is_drawn(
    number: float | None,
    model: StableDiffusion,
    suite: Suite,
    edit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Case 60: in the judge's own words, and no folder is left."""
    monkeypatch.setattr(StableDiffusion, "images", refuse)
    says = "OSError: model.safetensors is cut short" if number is None else "its numbers are NaN or infinite"
    with pytest.raises(Unmeasured, match=f"nothing was drawn, because scorer object-failing fails .*: .*{says}"):
        evaluate(model, edit, suite, [Planted(), Failing(number=number)], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(Unmeasured, match=says):
        attack(model, edit, suite, [Failing(number=number)], tmp_path / "out", [build_seeds()])
    assert not (tmp_path / "out").exists()


def build_seeds():
    from efface.attacks import build_attack

    return build_attack("seeds", "tiny")


def test_a_judge_that_fails_at_one_concept_is_not_refused(suite: Suite) -> None:
    try_scorers([Planted(fails_on="cat")], suite.rows, 16)


def test_a_scorer_that_has_answered_is_not_tried_again(suite: Suite, done: Path) -> None:
    judge = Failing(name="object-planted")
    with pytest.raises(Unmeasured):
        try_scorers([judge], suite.rows, 16, done / "scores")
    known = Planted()
    assert list((done / "scores").glob("object-planted-*/*.json"))
    try_scorers([known], suite.rows, 16, done / "scores")


def test_a_question_that_no_judge_answered_is_an_error(
    model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path, done: Path
) -> None:
    """Case 60: a judge that answers the trial and nothing afterwards leaves no report."""
    with pytest.raises(Unmeasured, match=r"no judge of 'object' \(object-failing\) could judge any of .* cut short"):
        evaluate(model, edit, suite, [Failing(after=1)], tmp_path, image_store=done / "images")
    assert not (tmp_path / "report.json").exists()


def test_scorers_without_any_number_leave_no_report(
    model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path, done: Path
) -> None:
    """Case 29."""
    scorer = Failing(after=1, question="mood", name="mood")
    with pytest.raises(Unmeasured, match="gave no number for any picture"):
        evaluate(model, edit, suite, [scorer], tmp_path, image_store=done / "images")
    assert not (tmp_path / "report.json").exists()


def test_a_judge_that_answers_with_one_label_is_served(
    model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path, done: Path
) -> None:
    """Case 29."""
    judge = Planted(labels=())
    record = evaluate(model, edit, suite, [judge], tmp_path, image_store=done / "images")
    target = record.find("esr1", "target")
    assert target and target.edited.n == len(suite.select_group("target")) and target.edited.value == 0
    assert not record.find("esr5", "target")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_unscored_counted_and_never_cached(
    number: float, model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path, done: Path
) -> None:
    """Case 61: also where they come in the middle of a chunk, and when a cache of an earlier version holds them."""
    judges = [Planted(), Failing(after=1, number=number, question="mood", name="mood")]
    record = evaluate(model, edit, suite, judges, tmp_path, image_store=done / "images")
    (mood, *_) = [m for m in record.measures if m.judge == "all" and m.metric == "failing"]
    assert (mood.edited.value, mood.edited.n, mood.edited.unscored) == (None, 0, len(suite.select_group(mood.group)))
    assert "too many pictures unscored" in [a.name for a in record.alarms]
    assert read_report(tmp_path) == record
    assert not list((tmp_path / "scores").glob("mood-*/*.json"))


def test_nan_in_a_judges_cache_is_asked_again(suite: Suite, done: Path, tmp_path: Path) -> None:
    """Case 61: what an earlier version cached is not believed."""
    lines = {x["id"]: x for x in _format_lines(done) if x["variant"] == "base"}
    paths = {row.id: lines[row.id]["picture"] for row in suite.rows}
    images = ImageSet(suite.rows, {"base": paths, "edited": paths}, done / "images", 16)
    whole = score_images(Planted(), images, "base", tmp_path)
    for file in tmp_path.glob("object-planted-*/*.json"):
        data = json.loads(file.read_text())
        data[0]["value"] = float("nan")
        file.write_text(json.dumps(data))
    assert score_images(Planted(), images, "base", tmp_path) == whole


def _format_lines(folder: Path):
    from efface.evaluation.rows_table import read_rows

    return read_rows(folder)


def test_nan_logits_of_a_classifier_judge_nothing(suite: Suite) -> None:
    """Case 61: the softmax of NaN has a first label all the same."""

    @dataclass(frozen=True)
    class Broken(Planted):
        def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
            labels = dict(enumerate(("dog", "cat", "none")))
            logits = torch.tensor([[float("nan")] * 3, [0.0, 5.0, 1.0]]).softmax(-1)
            return [score_labels(p, labels, r, "object") for p, r in zip(logits[: len(rows)], rows, strict=True)]

    rows, pictures = suite.rows[:2], torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    found, failed = score_safely(Broken(), pictures, rows, pictures)
    assert failed == 1 and found[0].value is None and found[0].answer == ()
    assert "NaN or infinite" in found[0].explanation and found[1].answer[0] == "cat"


def test_nan_in_an_edit_is_refused_before_anything_is_drawn(
    model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 61: one number is enough."""
    from safetensors.torch import save_file

    found = Edit.load(edit)
    name = found.names[0]
    values = {k: v.clone() for k, v in found.values.items()}
    values[name].flatten()[0] = float("nan")
    file = tmp_path / "nan.safetensors"
    save_file(values, file, metadata={"efface": json.dumps({**found.meta, "kind": "edit"})})
    monkeypatch.setattr(StableDiffusion, "images", refuse)
    with pytest.raises(ValueError, match=r"nan\.safetensors holds NaN or infinite numbers: 1 of"):
        evaluate(model, file, suite, [Planted()], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_report_says_what_its_rows_are_and_carries_its_digest(done: Path, suite: Suite) -> None:
    record = read_report(done)
    assert record.rows_file and record.rows_file.lines == 2 * len(suite.rows) and len(record.digest) == 64
    assert verify(done, "esr1<0.5").findings


def test_an_evaluation_and_attacks_of_another_edit_do_not_share_a_folder(
    done: Path, model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 57: refused before anything is drawn, whichever came first."""
    monkeypatch.setattr(StableDiffusion, "images", refuse)
    other = edit_of(model, tmp_path / "other.safetensors", scale=1.1)
    with pytest.raises(ValueError, match=r"edit with sha256 \w{16}…, the attacks of \w{16}…"):
        attack(model, other, suite, [Planted()], done, [build_seeds()])
    with pytest.raises(ValueError, match=r"strength 1.0 in the evaluation, 0.5 in the attacks"):
        attack(model, edit, suite, [Planted()], done, [build_seeds()], settings=Settings(strength=0.5))
    with pytest.raises(ValueError, match=r"steps 2 in the evaluation, 3 in the attacks"):
        attack(model, edit, suite, [Planted()], done, [build_seeds()], settings=Settings(steps=3))
    write_attacks(tmp_path)
    with pytest.raises(ValueError, match="do not belong to the evaluation there"):
        evaluate(model, edit, suite, [Planted()], tmp_path)
    assert not (tmp_path / "protocol.json").exists()


def test_pictures_without_numbers_are_unscored_and_counted(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cases 25 and 61: two pictures under the edit come out as NaN and infinity; a judge would answer of black ones."""
    model = world_model()
    edit, decode, calls = edit_of(model, tmp_path / "cat.safetensors"), model.vae.decode, []

    def overflow(z: Tensor, **how: bool) -> tuple[Tensor]:
        calls.append(len(z))
        pictures = decode(z, **how)[0].clone()
        if len(calls) == 2:
            pictures[1, 0, 0, 0], pictures[2, 1, 3, 3] = float("nan"), float("inf")
        return (pictures,)

    monkeypatch.setattr(model.vae, "decode", overflow)
    record = evaluate(model, edit, suite, [Planted(), Planted(name="object-second")], tmp_path / "out")
    assert calls == [len(suite.rows)] * 2
    target = record.find("esr1", "target")
    assert target and (target.base.unscored, target.edited.unscored) == (0, 2)
    lines = {(x["id"], x["variant"]): x for x in _format_lines(tmp_path / "out")}
    for row in suite.rows[1:3]:
        line = lines[row.id, "edited"]
        assert line["picture"].endswith(".lost.png") and line["success"] is None
        assert "came out as NaN or infinite numbers" in line["object-planted.explanation"]
    assert lines[suite.rows[0].id, "edited"]["success"] is not None
    # A second run draws and asks nothing, and says the same.
    monkeypatch.setattr(StableDiffusion, "images", refuse)
    assert evaluate(model, edit, suite, [Planted(), Planted(name="object-second")], tmp_path / "out") == record


def test_a_drawing_without_numbers_says_which_and_what_helps() -> None:
    model = world_model()
    latents = torch.zeros(3, *model.latent_shape)
    latents[1] = float("nan")
    with pytest.raises(
        NoNumbers, match=r"1 of 3 pictures came out as NaN or infinite numbers: .* --dtype bf16"
    ) as found:
        model.decode(latents)
    assert found.value.lost == (1,) and not found.value.pictures[1].any()
    assert torch.equal(found.value.pictures[::2], model.decode(latents[::2]))
