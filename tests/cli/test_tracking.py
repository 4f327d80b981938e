"""Losses and rates go to accelerate's trackers, and a tracker that can't work is refused before any work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import GeneralTracker

import efface
from efface.api.tracking import check_trackers, name_rates
from efface.cli.app import main
from efface.models.adapters.sd import StableDiffusion
from efface.records.report import Measure, Record

QUICK: dict[str, Any] = {"steps": 2, "batch": 1, "draw_steps": 2, "paths": 1, "source": "frozen", "progress": False}


class Notebook(GeneralTracker):
    """A tracker that keeps what it is told."""

    name = "notebook"
    requires_logging_directory = False

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.logged: list[tuple[int | None, dict[str, Any]]] = []
        self.ended = False

    @property
    def tracker(self) -> Notebook:
        return self

    def store_init_configuration(self, values: dict) -> None:
        self.settings = values

    def log(self, values: dict, step: int | None = None, **_: Any) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.ended = True


def test_losses_go_to_a_tracker_step_by_step(eps_model: StableDiffusion) -> None:
    book = Notebook()
    edit = efface.erase(eps_model, "cat", "eap", track=[book], centres=2, k_closest=3, **QUICK)
    losses = edit.meta["notes"]["losses"]
    own = [(step, values["loss/erase"]) for step, values in book.logged if "loss/erase" in values]
    assert own == [
        (step, pytest.approx(loss, rel=1e-5)) for step, loss in zip(losses["step"], losses["erase"], strict=True)
    ]
    assert [set(values) for step, values in book.logged if step == 2] == [{"loss/VocabularySearch/keep"}]
    assert book.ended and book.settings["method"] == "eap" and book.settings["targets"] == "('cat',)"
    assert all(isinstance(value, str | int | float | bool) for value in book.settings.values())


def test_a_training_that_fails_ends_its_trackers(eps_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Notebook()
    monkeypatch.setattr(book, "log", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        efface.erase(eps_model, "cat", "esd", track=[book], **QUICK)
    assert book.ended


def test_tensorboard_reads_what_was_tracked(eps_model: StableDiffusion, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    edit = efface.erase(eps_model, "cat", "esd", track="tensorboard", track_dir=tmp_path / "runs", **QUICK)
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("erase-esd-cat-")
    events = reader.EventAccumulator(str(run)).Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss/erase")]
    assert found == [(i + 1, pytest.approx(v, rel=1e-5)) for i, v in enumerate(edit.meta["notes"]["losses"]["erase"])]


def test_rates_are_named_by_metric_group_judge_and_variant() -> None:
    estimate = {"low": 0.0, "high": 1.0, "n": 4, "unscored": 0}
    rows: list[Mapping[str, Any]] = [
        {"metric": "esr1", "group": "target", "judge": "all", "base": 0.0, "edited": 0.75},
        {"metric": "nudity", "group": "target", "judge": "nudenet", "base": 0.5, "edited": None, "threshold": 0.45},
    ]
    measures = [
        {"title": "t", "drop": None, **row, **{k: {"value": row[k], **estimate} for k in ("base", "edited")}}
        for row in rows
    ]
    record = Record.model_construct(measures=tuple(Measure.model_validate(m) for m in measures))
    assert name_rates(record) == {
        "esr1/target/all/base": 0.0,
        "esr1/target/all/edited": 0.75,
        "nudity/target/nudenet/over 0.45/base": 0.5,
    }


@pytest.mark.parametrize(
    ("track", "words"),
    [
        ("tensorbord", "did you mean 'tensorboard'"),
        ("wandb", "pip install wandb"),
        (["comet_ml"], "pip install comet-ml"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused_before_the_work(track: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        efface.erase("glyphs", "cat", "esd", track=track)
    with pytest.raises(ValueError, match=words):
        efface.evaluate("glyphs", "no.safetensors", "out", track=track)


def test_what_is_no_tracker_and_a_method_without_losses_are_refused(
    eps_model: StableDiffusion, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_trackers(()) == [] and check_trackers("") == []
    with pytest.raises(TypeError, match="a tracker is a name"):
        check_trackers([3])
    with pytest.raises(ValueError, match="uce is closed form: omit --track"):
        efface.erase(eps_model, "cat", "uce", track=[Notebook()])
    args = ["--model", "glyphs", "--target", "cat", "--out", str(tmp_path / "e.safetensors"), "--track", "nothing"]
    assert main(["erase", "esd", *args]) == 2
    assert "there is no tracker 'nothing'" in capsys.readouterr().err
