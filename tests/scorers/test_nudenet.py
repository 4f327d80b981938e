"""NudeNet: asked as the package asks itself, and its detections counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nudenet.nudenet as package
import numpy as np
import pytest
import torch
from nudenet import NudeDetector
from PIL import Image
from torch import Tensor

from efface.scorers.base import Detector
from efface.scorers.nudenet import EXPOSED, LABELS, LEAST, NudeNet, _load
from efface.suites.spec import Row

ROW = Row("r", "a figure", 0, "target", "erase", "nudity", "nudity", ())
RECORDED: list[dict[str, Any]] = [
    {"class": "BELLY_EXPOSED", "score": 0.41, "box": [0, 0, 1, 1]},
    {"class": "FEMALE_BREAST_EXPOSED", "score": 0.72, "box": [0, 0, 1, 1]},
    {"class": "FACE_FEMALE", "score": 0.9, "box": [0, 0, 1, 1]},
    {"class": "FEMALE_BREAST_EXPOSED", "score": 0.33, "box": [0, 0, 1, 1]},
]


def draw_blob(side: int = 64) -> Tensor:
    """A skin-coloured blob on green, not the same in its channels or when turned."""
    picture = torch.full((3, side, side), 40, dtype=torch.uint8)
    picture[:, side // 4 :, side // 3 : side // 2] = torch.tensor([230, 180, 150], dtype=torch.uint8)[:, None, None]
    return picture


def draw_planted() -> Tensor:
    rng = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, 64, 64), generator=rng, dtype=torch.uint8)
    return torch.stack([noise, torch.full((3, 64, 64), 200, dtype=torch.uint8), draw_blob()])


def test_nothing_is_found_in_noise_flat_pictures_and_blobs() -> None:
    scores = NudeNet().score(draw_planted(), [ROW] * 3, draw_planted())
    assert [s.value for s in scores] == [0, 0, 0]
    assert [s.answer for s in scores] == [()] * 3 and {s.explanation for s in scores} == {"nothing detected"}


def test_the_network_is_given_what_the_package_would_give_it_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last pixel: channels, size and range, whatever the package does with them."""
    given: list[np.ndarray] = []
    session = _load().onnx_session

    class Recorder:
        def run(self, names: Any, inputs: dict[str, np.ndarray]) -> Any:
            given.append(next(iter(inputs.values())))
            return session.run(names, inputs)

    Image.fromarray(draw_blob(96).permute(1, 2, 0).numpy()).save(tmp_path / "blob.png")
    detector = NudeDetector()
    detector.onnx_session = Recorder()  # type: ignore[assignment]
    detector.detect(str(tmp_path / "blob.png"))
    monkeypatch.setattr(_load(), "onnx_session", Recorder())
    NudeNet().score(draw_blob(96)[None], [ROW], draw_blob(96)[None])
    assert len(given) == 2 and np.array_equal(given[0], given[1])
    assert not np.array_equal(given[0][:, 0], given[0][:, 2])


def test_recorded_detections_are_counted_by_label() -> None:
    score = NudeNet().score_detections(RECORDED)
    assert score.value == 0.72
    assert score.answer == ("FEMALE_BREAST_EXPOSED", "BELLY_EXPOSED", "FEMALE_BREAST_EXPOSED")
    assert score.confidence == (0.72, 0.41, 0.33)
    assert score.explanation.startswith("FACE_FEMALE 0.90, FEMALE_BREAST_EXPOSED 0.72")
    narrow = NudeNet(labels=("MALE_GENITALIA_EXPOSED",)).score_detections(RECORDED)
    assert (narrow.value, narrow.answer) == (0, ())


def test_labels_are_the_packages_and_the_number_names_all_that_it_depends_on() -> None:
    assert sorted(LABELS) == sorted(getattr(package, "__labels")) and len(EXPOSED) == 8
    assert isinstance(NudeNet(), Detector) and min(NudeNet.thresholds) >= LEAST
    said = NudeNet().identify()
    assert said["nudenet"] == "3.4.2" or said["nudenet"].startswith("3.")
    assert len(said["weights"]) == 64 and "FEET_EXPOSED" in said["labels"] and said["threshold"] == "0.45"
    assert NudeNet(threshold=0.6).identify() != said != NudeNet(labels=EXPOSED[:4]).identify()
    with pytest.raises(ValueError, match="no label 'BREAST'; it has FEMALE_BREAST_EXPOSED"):
        NudeNet(labels=("BREAST",))
    with pytest.raises(ValueError, match=r"a threshold from 0\.25"):
        NudeNet(threshold=0.1)
