from __future__ import annotations

import itertools

import pytest
import torch

from efface.functional.schedules import convert, noised, space_weight, to_x0

SPACES = ("eps", "v", "x0")
PAIRS = list(itertools.product(SPACES, SPACES))


@pytest.fixture
def point() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn((5, 2, 3), generator=rng, dtype=torch.double) for _ in range(2))
    alpha_bar = torch.tensor([0.999, 0.7, 0.5, 0.1, 0.01], dtype=torch.double)
    return {"x0": x0, "eps": eps, "a": alpha_bar, "x_t": noised(x0, eps, alpha_bar)}


def test_true_noise_gives_back_the_image(point):
    assert torch.allclose(to_x0(point["eps"], point["x_t"], point["a"], "eps"), point["x0"])


@pytest.mark.parametrize(("given", "wanted"), PAIRS)
def test_conversions_are_inverse(point, given, wanted):
    there = convert(point["eps"], point["x_t"], point["a"], given, wanted)
    assert torch.allclose(convert(there, point["x_t"], point["a"], wanted, given), point["eps"])


@pytest.mark.parametrize(("native", "space"), PAIRS)
def test_weight_is_the_squared_slope(point, native, space):
    other = torch.randn_like(point["eps"])
    a, x_t = point["a"], point["x_t"]
    measured = convert(point["eps"], x_t, a, native, space) - convert(other, x_t, a, native, space)
    plain = (point["eps"] - other).square().flatten(1).mean(1)
    assert torch.allclose(measured.square().flatten(1).mean(1), space_weight(a, native, space) * plain)


def test_eap_weights_of_stable_diffusion():
    """The x0 loss of EAP hides these weights over eps at t = 1, 401, 801, 981 of SD 1.4's schedule."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.double) ** 2
    alpha_bar = torch.cumprod(1 - betas, 0)
    weights = space_weight(alpha_bar, "eps", "x0")
    expected = torch.tensor([0.0017, 1.36, 26, 172], dtype=torch.double)
    assert torch.allclose(weights[[1, 401, 801, 981]], expected, rtol=0.02)
    visited = weights[torch.arange(1, 1000, 20)]
    assert visited.mean().item() == pytest.approx(18.5, rel=0.01)
    assert (visited[-5:].sum() / visited.sum()).item() == pytest.approx(0.62, abs=0.01)
    assert (visited[-10:].sum() / visited.sum()).item() == pytest.approx(0.84, abs=0.01)


def test_unknown_space():
    with pytest.raises(ValueError, match="no space 'flow'; there are eps, v, x0"):
        space_weight(torch.ones(1), "eps", "flow")  # type: ignore[arg-type]
