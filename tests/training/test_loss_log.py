"""The losses of a training in its Edit: all of them in a resumed one too, thinned, and drawn in the report."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest

from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.methods.eap import EAP
from efface.methods.esd import ESD
from efface.models.adapters.sd import StableDiffusion
from efface.reporting.history import build_histories
from efface.reporting.losses import draw_losses, read_series
from efface.training.loss_log import POINTS, LossLog

QUICK = {"batch": 1, "draw_steps": 2, "lr": 1e-3, "paths": 1, "source": "frozen"}


def test_the_edit_keeps_the_losses_that_its_training_told(eps_model: StableDiffusion, tmp_path: Path) -> None:
    told: list[dict[str, float]] = []

    def on_progress(step: int, of: int, learner: str, loss: dict[str, float]) -> None:
        told.append(loss)

    edit = ESD(steps=3, **QUICK).fit(eps_model, Erasure(("cat",)), progress=on_progress)
    series = Edit.load(edit.save(tmp_path / "cat.safetensors")).meta["notes"]["losses"]
    assert series["step"] == [1, 2, 3]
    assert series["erase"] == pytest.approx([loss["erase"] for loss in told], rel=1e-5)


def test_a_searchs_steps_are_not_among_the_losses_of_the_weights(eps_model: StableDiffusion) -> None:
    edit = EAP(steps=2, centres=2, k_closest=3, **QUICK).fit(eps_model, Erasure(("cat",)))
    series = edit.meta["notes"]["losses"]
    assert series["step"] == [1, 3] and len(series["keep"]) == 2  # steps 2 and 4 are the search's


def test_a_resumed_training_has_the_same_losses(eps_model: StableDiffusion, tmp_path: Path) -> None:
    method, file = ESD(steps=27, **QUICK), tmp_path / "state"

    def stop(step: int, of: int, **_: object) -> None:
        if step == 26:
            raise KeyboardInterrupt

    whole = method.fit(eps_model, Erasure(("cat",)))
    with pytest.raises(KeyboardInterrupt):
        method.fit(eps_model, Erasure(("cat",)), progress=stop, checkpoint=file)
    assert method.fit(eps_model, Erasure(("cat",)), checkpoint=file).same_as(whole)


def test_a_long_series_is_thinned_to_means() -> None:
    log = LossLog()
    for step in range(1, 1001):
        log.add(step, {"erase": float(step)} if step % 2 else {"erase": float(step), "keep": 1.0})
    series = log.collect_metadata()["losses"]
    assert len(series["step"]) == POINTS and series["step"][:2] == [5, 10] and series["step"][-1] == 1000
    assert series["erase"][0] == 3.0 and series["keep"][0] == 1.0
    again = LossLog()
    again.load_state_dict(log.state_dict())
    assert again.collect_metadata() == log.collect_metadata()
    again.load_state_dict({})  # a checkpoint of an earlier version
    assert again.collect_metadata() == {}


def test_the_report_draws_the_losses() -> None:
    note = {"step": [1, 2, 3, 4], "erase": [1.0, 0.1, 0.01, 0.001], "keep": [None, 0.5, None, 0.2]}
    (found,) = build_histories({"losses": note})
    assert found.text == "erase: 1 at first, 0.001 at last; keep: 0.5 at first, 0.2 at last"
    svg = str(found.plot)
    assert "loss, logarithmic" in svg
    assert svg.count("<polyline") == 3 + 2  # keep is broken where it had no part; beside each name lies a sample
    series = read_series(note)
    assert series is not None
    (line,) = (part for part in svg.split("<polyline ")[1:2])
    places = [tuple(map(float, pair.split(","))) for pair in line.split('"')[1].split()]
    drops = [b[1] - a[1] for a, b in pairwise(places)]
    assert drops == pytest.approx([drops[0]] * 3, abs=0.2) and drops[0] > 0  # tenfold each: as far down each time
    rising = read_series({"step": [1, 2], "erase": [-1.0, 1.0]})
    assert rising is not None and "logarithmic" not in draw_losses(rising)


@pytest.mark.parametrize(
    "note",
    [
        3,
        ["a"],
        {"step": [1, 2]},
        {"step": [1], "erase": [1.0]},
        {"step": [1, 2], "erase": ["x", "<b>"]},
        {"step": [1, 2], "erase": [1.0]},
        {"step": "12", "erase": "12"},
        {"step": [True, 2], "erase": [1.0, math.pi]},
    ],
)
def test_a_note_that_is_no_series_is_shown_as_any_other(note: object) -> None:
    assert read_series(note) is None
    assert all(history.plot is None for history in build_histories({"losses": note}))
