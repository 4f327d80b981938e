"""Scorers of sets that compare with a folder of reference pictures instead of with the base's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from efface.files import read_pictures
from efface.scorers._features import Features
from efface.scorers.base import TooFew
from efface.scorers.fid import Fid
from efface.scorers.kid import Kid, kid
from efface.scorers.precision import Precision
from efface.scorers.recall import Recall
from efface.suites.spec import Row
from judging_fixtures import write_bundle

ROW = Row("r", "a cat", 0, "unseen", "keep", "object", "cat", ("cat",))


def build_rows(n: int) -> list[Row]:
    return [dataclasses.replace(ROW, id=str(i)) for i in range(n)]


def draw_features(n: int, seed: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).relu()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def write_planted(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def test_reference_pictures_take_the_place_of_the_bases(bundle: Path, tmp_path: Path) -> None:
    folder = bundle / "judges" / "object-resnet"
    place = write_planted(tmp_path / "real", 25)
    scorer = Kid(folder=str(folder), reference=str(place))
    base, edited = draw_features(24, 1, d=8), draw_features(24, 2, d=8)
    found = scorer.compare(base, edited, build_rows(24), 16)
    files = sorted(place.iterdir())
    known = Features(str(folder)).extract_features(
        torch.stack([torch.from_numpy(np.asarray(Image.open(f)).copy()).permute(2, 0, 1) for f in files])
    )
    assert found and found[1].n == 24
    assert found[0].value == pytest.approx(kid(known, base))
    assert found[1].value == pytest.approx(kid(known, edited))
    assert scorer.identify() != Kid(folder=str(folder)).identify()
    with pytest.raises(FileNotFoundError, match="no folder"):
        Kid(folder=str(folder), reference=str(tmp_path / "nowhere")).check(build_rows(2))


def test_too_few_reference_pictures_give_no_number_and_are_refused_before_any_drawing(
    bundle: Path, tmp_path: Path
) -> None:
    """As many pictures of the model as needed beside five of the reference's are too few."""
    folder, place = str(bundle / "judges" / "object-resnet"), str(write_planted(tmp_path / "few", 5))
    x, rows = draw_features(24, 1, d=8), build_rows(24)
    for kind in (Kid, Fid, Precision, Recall):
        scorer = kind(folder=folder, reference=place, least=6)
        assert scorer.compare(x, x, rows, 16) is None
        with pytest.raises(TooFew, match=f"needs 6 pictures in each set, and {place} holds 5"):
            scorer.check(rows)
        kind(folder=folder, reference=place, least=5).check(rows)


def test_reference_pictures_are_held_a_batch_at_a_time_in_the_order_of_their_captions(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, held = write_planted(tmp_path / "many", 130), []
    for i in range(130):
        (place / f"{i}.txt").write_text(f"caption {i % 3}")
    mean = classmethod(lambda cls, images: held.append(len(images)) or images.double().mean((2, 3)).float())
    monkeypatch.setattr(Features, "extract_features", mean)
    edited = draw_features(24, 1, d=3)
    found = Kid(folder=str(bundle / "judges" / "object-resnet"), reference=str(place)).compare(
        edited, edited, build_rows(24), 16
    )
    assert held == [64, 64, 2]
    known = torch.cat([stack.double().mean((2, 3)).float() for stack in read_pictures(place, 16).values()])
    assert found and found[1].value == kid(known, edited)
