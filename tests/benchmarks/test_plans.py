"""The table of bytes: every method and every standard attack has its row, and rows say what trackers count."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from diffusers import UNet2DConditionModel
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import plans
from benchmarks.peaks import measure_attack, measure_autoencoder, measure_method
from efface import attacks
from efface.models.adapters.sd import StableDiffusion
from efface.models.fingerprint import CASTS
from tiny import WORDS, small_pipeline, tiny_autoencoder
from tiny_fits import list_served


@cache
def build_shapes() -> Any:
    """A tiny model whose denoiser and autoencoder are shapes without numbers."""
    made = small_pipeline()
    with FakeTensorMode(allow_non_fake_inputs=True):
        made.unet = UNet2DConditionModel.from_config(made.unet.config)
        made.vae = tiny_autoencoder()
    model = StableDiffusion(made, "tiny", words=WORDS)
    model._fingerprint = dict.fromkeys(CASTS, "tiny")
    model.recordings.bound = 0
    return model


@pytest.mark.filterwarnings("ignore:.*exceeds? 8 tokens:UserWarning")  # the tiny model's room
@pytest.mark.parametrize("name", list_served("sd"))
def test_every_method_has_a_row(name: str) -> None:
    row = measure_method(name, build_shapes(), contexts=("{}",))
    assert row["peak GB"] > row["weights"] > 0 and row["how"]


@pytest.mark.parametrize("name", attacks.STANDARD)
def test_every_standard_attack_has_a_row(name: str) -> None:
    row = measure_attack(name, build_shapes(), 10**9)
    assert row["peak GB"] > row["weights"] > 0
    assert ("gradient" in row["how"]) == (name in ("unlearndiff", "soft-prompt"))


def test_a_guide_takes_more_than_the_plain_prediction_of_two_conditions() -> None:
    """SLD asks under three conditions where two are guidance's own."""
    assert measure_method("sld", build_shapes())["a step"] > measure_method("negative", build_shapes())["a step"]


def test_the_autoencoder_is_told_beside_its_weights() -> None:
    assert measure_autoencoder(build_shapes(), "decode") > 0


def test_the_command_measures_the_named_methods_or_all_that_serve_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "open_shapes", lambda *_: build_shapes())
    monkeypatch.setattr(plans, "measure_method", lambda name, *_: {"peak GB": float(len(name))})
    for asked, wanted in (((), set(list_served("sd"))), (("uce",), {"uce"})):
        plans.Plans(sizes=("sd",), methods=asked, attacks=False, waits=False, out=tmp_path).run()
        found = json.loads((tmp_path / "plans.json").read_text(encoding="utf-8"))
        assert {row["method"] for row in found["sd"]["methods"]} == wanted
        assert all(row["peak GB"] == len(row["method"]) for row in found["sd"]["methods"])
