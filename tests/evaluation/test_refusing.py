"""What an evaluation refuses, and that it leaves nothing behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from efface.edits.edit import WrongBase
from efface.evaluation.evaluate import Settings, evaluate
from efface.models.adapters.sd import StableDiffusion
from efface.suites.spec import Suite
from efface.suites.world import World
from judging_fixtures import JUDGES, Planted, world_model


def test_what_cannot_be_drawn_leaves_nothing_behind(
    model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        evaluate(model, edit, suite, JUDGES, tmp_path / "new", Settings(steps=0))
    assert not (tmp_path / "new").exists()


def test_bad_input_is_refused(model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path, small: World) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(edit.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated"):
        evaluate(model, cut, suite, JUDGES, tmp_path / "a")
    other = world_model()
    other._fingerprint = dict.fromkeys(model.fingerprint(), "0" * 32)
    with pytest.raises(WrongBase):
        evaluate(other, edit, suite, JUDGES, tmp_path / "b")
    with pytest.raises(ValueError, match="share a name"):
        evaluate(model, edit, suite, [Planted(), Planted()], tmp_path / "c")
    assert not list(tmp_path.glob("[abc]/*"))


def test_a_report_that_would_be_empty_is_refused_before_anything_is_drawn(
    model: StableDiffusion, suite: Suite, edit: Path, tmp_path: Path
) -> None:
    mute = type("Mute", (), {"name": "mute", "question": "mood", "version": "1"})()
    with pytest.raises(ValueError, match="scorer mute does not declare title, unit, better, share"):
        evaluate(model, edit, suite, [mute], tmp_path)
    with pytest.raises(ValueError, match="report would be empty: its rows ask about object, and the scorers"):
        evaluate(model, edit, suite, [], tmp_path)
    plain = dataclasses.replace(suite, rows=tuple(dataclasses.replace(r, style="") for r in suite.rows))
    with pytest.raises(ValueError, match=r"style-planted \(style\)"):
        evaluate(model, edit, plain, [JUDGES[2]], tmp_path)
    assert not list(tmp_path.iterdir())
