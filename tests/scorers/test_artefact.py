"""Pictures that are none: flat, and noise of several grains."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from efface.scorers.artefact import Artefact, measure_contrast, measure_evenness, measure_likeness
from efface.suites.spec import Row

ROW = Row("r", "a cat", 0, "unseen", "keep", "object", "cat", ("cat",))


def draw_noise(grain: int, side: int = 64, n: int = 4) -> Tensor:
    """Noise whose neighbours are alike over `grain` pixels, as a latent of noise looks when it is decoded."""
    coarse = torch.rand(n, 3, side // grain, side // grain, generator=torch.Generator().manual_seed(grain)) * 255
    return F.interpolate(coarse, size=side, mode="bilinear").to(torch.uint8)


def draw_scene(side: int = 64) -> Tensor:
    """A thing on a ground."""
    picture = torch.full((1, 3, side, side), 220, dtype=torch.uint8)
    grid = torch.arange(side) - side / 2
    disc = grid[:, None] ** 2 + grid[None] ** 2 < (side / 4) ** 2
    picture[0, 0][disc], picture[0, 1][disc] = 30, 90
    return picture


def list_said(images: Tensor) -> list[tuple[float | None, str]]:
    return [(s.value, s.answer[0]) for s in Artefact().score(images, [ROW] * len(images), images)]


@pytest.mark.parametrize("side", [32, 64, 256])
def test_a_thing_on_a_ground_is_a_picture_at_every_size(side: int) -> None:
    assert list_said(draw_scene(side)) == [(0.0, "picture")]


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_picture_is_an_artefact_though_it_has_a_grain(level: int) -> None:
    grain = torch.randint(-1, 2, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    assert list_said((level + grain).clamp(0, 255).to(torch.uint8)) == [(1.0, "flat")]


@pytest.mark.parametrize("grain", [1, 2, 4])
def test_noise_is_an_artefact_whatever_its_grain(grain: int) -> None:
    assert list_said(draw_noise(grain)) == [(1.0, "noise")] * 4


def test_the_three_facts_are_what_they_say() -> None:
    half = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    half[:, 0, :, 8:] = 100
    assert measure_contrast(half) == pytest.approx([float(half[0, 0].double().std())])
    checks = (torch.arange(16)[:, None] + torch.arange(16)[None]) % 2 * 255
    board = checks.to(torch.uint8).expand(1, 3, 16, 16)
    assert measure_evenness(board) == [0] and measure_likeness(board)[0] == pytest.approx(-1)
    assert measure_evenness(half)[0] == pytest.approx(0, abs=1e-6)
