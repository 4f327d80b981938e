"""Distances to the base's picture, against brute force."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from efface.scorers.lpips import Lpips, _load
from efface.scorers.pixels import Pixels
from efface.scorers.ssim import Ssim
from efface.suites.spec import Row

ROW = Row("r", "a cat", 0, "unseen", "keep", "object", "cat", ("cat",))


def draw_pictures(seed: int, n: int = 3, side: int = 16) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_pixels_is_the_mean_absolute_difference_and_does_not_wrap_around() -> None:
    one, other = draw_pictures(1), draw_pictures(2)
    scores = Pixels().score(one, [ROW] * 3, other)
    expected = np.abs(one.numpy().astype(float) - other.numpy().astype(float)).mean(axis=(1, 2, 3)) / 255
    assert [s.value for s in scores] == pytest.approx(expected.tolist())
    black, white = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    assert Pixels().score(black, [ROW], white)[0].value == Pixels().score(white, [ROW], black)[0].value == 1
    assert Pixels().score(one, [ROW] * 3, one)[0].value == 0


def compute_ssim_by_hand(one: np.ndarray, other: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, in the window of 11 pixels about each one of two mirrored pictures [3, h, w]."""
    axis = np.arange(11) - 5
    weights = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2, found = (0.01 * 255) ** 2, (0.03 * 255) ** 2, []
    for x, y in zip(
        *(np.pad(p.astype(float), ((0, 0), (5, 5), (5, 5)), mode="reflect") for p in (one, other)), strict=True
    ):
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                mx, my = (weights * a).sum(), (weights * b).sum()
                vx, vy = (weights * (a - mx) ** 2).sum(), (weights * (b - my) ** 2).sum()
                cov = (weights * (a - mx) * (b - my)).sum()
                found.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(found))


def test_ssim_is_wangs_in_every_window() -> None:
    one = draw_pictures(1, side=24)
    other = (one.float() * 0.5 + draw_pictures(2, side=24).float() * 0.3).round().to(torch.uint8)
    scores = Ssim().score(one, [ROW] * 3, other)
    for score, a, b in zip(scores, one.numpy(), other.numpy(), strict=True):
        assert score.value == pytest.approx(compute_ssim_by_hand(a, b), abs=1e-4)
    assert [s.value for s in Ssim().score(one, [ROW] * 3, one)] == pytest.approx([1.0] * 3, abs=1e-4)
    (single,) = Ssim().score(one[:1], [ROW], other[:1])
    assert single.value == pytest.approx(scores[0].value)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_lpips_without_torchvision_names_what_brings_it() -> None:
    """The extra `fid` does not install torchvision."""
    with pytest.raises(ValueError, match=r"lpips needs torchvision, .*pip install 'torchvision'"):
        Lpips().check([ROW])
    with pytest.raises(ValueError, match="no net 'resnet'; there are alex, vgg, squeeze"):
        Lpips(net="resnet")  # type: ignore[arg-type]


@pytest.fixture
def random_alexnet(monkeypatch: pytest.MonkeyPatch) -> nn.Sequential:
    """AlexNet's layers, of random weights, where torchmetrics would take torchvision's."""
    from torchmetrics.functional.image import lpips as function
    from torchmetrics.image import lpip as metric

    torch.manual_seed(0)
    sizes = [(3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1)]
    layers: list[nn.Module] = []
    for i, (given, made, kernel, stride, padding) in enumerate(sizes):
        layers += [nn.MaxPool2d(3, 2)] if i in (1, 2) else []
        layers += [nn.Conv2d(given, made, kernel, stride, padding), nn.ReLU()]
    network = nn.Sequential(*layers, nn.MaxPool2d(3, 2)).eval()
    monkeypatch.setattr(metric, "_TORCHVISION_AVAILABLE", True)
    monkeypatch.setattr(function, "_get_tv_model_features", lambda *_: network)
    _load.cache_clear()
    return network


def test_lpips_is_the_weighted_distance_of_normed_activations(random_alexnet: nn.Sequential) -> None:
    """With the published linear weights, on a network of random ones; single pictures and batches agree."""
    one, other = draw_pictures(1, side=64), draw_pictures(2, side=64)
    scores = Lpips(batch=2).score(one, [ROW] * 3, other)
    weights = [
        w.detach().flatten() for n, w in _load("alex").named_parameters() if n.startswith("lin") and w.dim() == 4
    ]
    _load.cache_clear()
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    for score, pair in zip(scores, zip(one, other, strict=True), strict=True):
        seen = [(p.float() / 127.5 - 1 - shift[:, None, None]) / scale[:, None, None] for p in pair]
        total, layer = 0.0, 0
        for part in random_alexnet:
            with torch.no_grad():
                seen = [part(x) for x in seen]
            if isinstance(part, nn.ReLU):
                unit = [x / x.square().sum(0, keepdim=True).sqrt() for x in seen]
                apart = (unit[0] - unit[1]).square().sum((1, 2)) / (unit[0].shape[1] * unit[0].shape[2])
                total, layer = total + float(apart @ weights[layer]), layer + 1
        assert layer == 5 and score.value == pytest.approx(total, rel=1e-3) and not math.isclose(total, 0)
    assert Lpips().identify()["net"] == "alex"
