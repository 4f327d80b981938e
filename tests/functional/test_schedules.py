"""The maps between prediction spaces, each against the definitions of its two ends."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
import torch
from torch import Tensor

from efface.functional.schedules import (
    NoiseLevel,
    Space,
    add_noise,
    convert,
    denoising_target,
    space_weight,
    to_x0,
)

SPACES: tuple[Space, ...] = get_args(Space)
PAIRS = list(itertools.product(SPACES, SPACES))
LEVELS = {
    "preserving": NoiseLevel.from_alpha_bar(torch.tensor([0.999, 0.7, 0.5, 0.1, 0.01], dtype=torch.double)),
    "flow": NoiseLevel.from_flow(torch.tensor([0.001, 0.3, 0.5, 0.9, 0.99], dtype=torch.double)),
    "neither": NoiseLevel(*torch.tensor([[1.0, 0.9, 0.5, 0.3, 2.0], [0.1, 0.9, 0.7, 2.0, 3.0]], dtype=torch.double)),
}


def compute_truth(x0: Tensor, eps: Tensor, level: NoiseLevel) -> dict[Space, Tensor]:
    """What a perfect network says in each space, row by row as the spaces are defined."""
    v = [a * e - s * x for a, s, x, e in zip(level.alpha.tolist(), level.sigma.tolist(), x0, eps, strict=True)]
    return {"eps": eps, "x0": x0, "v": torch.stack(v), "flow": eps - x0}


def draw_pair(seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x0, eps = (torch.randn((5, 2, 3), generator=rng, dtype=torch.double) for _ in range(2))
    return x0, eps


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> NoiseLevel:
    return LEVELS[request.param]


@pytest.mark.parametrize(("given", "wanted"), PAIRS)
def test_every_pair_of_spaces_says_the_same_of_a_perfect_prediction(
    level: NoiseLevel, given: Space, wanted: Space
) -> None:
    x0, eps = draw_pair()
    x_t, says = add_noise(x0, eps, level), compute_truth(x0, eps, level)
    assert torch.allclose(to_x0(says[given], x_t, level, given), x0)
    assert torch.allclose(convert(says[given], x_t, level, given, wanted), says[wanted])


@pytest.mark.parametrize("space", SPACES)
def test_the_target_of_a_denoiser_is_what_a_perfect_one_says(level: NoiseLevel, space: Space) -> None:
    x0, eps = draw_pair()
    found = denoising_target(x0, eps, add_noise(x0, eps, level), level, space)
    assert torch.allclose(found, compute_truth(x0, eps, level)[space])


ENDS = {
    "preserving": NoiseLevel.from_alpha_bar(torch.tensor([0.0, 0.3, 1.0], dtype=torch.double)),
    "flow": NoiseLevel.from_flow(torch.tensor([1.0, 0.7, 0.0], dtype=torch.double)),
}


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("space", SPACES)
def test_the_target_of_a_denoiser_is_exact_at_pure_noise_and_at_the_picture(kind: str, space: Space) -> None:
    """Zero terminal SNR, and both ends of a flow: x0 and eps can't be computed from one another there."""
    level, (x0, eps) = ENDS[kind], (part[:3] for part in draw_pair())
    found = denoising_target(x0, eps, add_noise(x0, eps, level), level, space)
    assert torch.allclose(found, compute_truth(x0, eps, level)[space])


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("space", SPACES)
def test_a_prediction_of_noise_can_be_converted_where_no_noise_is_left(kind: str, space: Space) -> None:
    level, (x_t, eps) = ENDS[kind][2:], (part[:1] for part in draw_pair())
    assert torch.allclose(convert(eps, x_t, level, "eps", space), compute_truth(x_t, eps, level)[space])


def test_the_forward_process_row_by_row(level: NoiseLevel) -> None:
    x0, eps = draw_pair()
    by_hand = [level.alpha[i].item() * x0[i] + level.sigma[i].item() * eps[i] for i in range(5)]
    assert torch.allclose(add_noise(x0, eps, level), torch.stack(by_hand))


@pytest.mark.parametrize(("given", "wanted"), PAIRS)
def test_weight_is_the_squared_slope(level: NoiseLevel, given: Space, wanted: Space) -> None:
    """By differences: two predictions that are wrong by one apart are wrong by the slope apart elsewhere."""
    x_t, one = draw_pair()
    there = [convert(one + k, x_t, level, given, wanted) for k in (0, 1)]
    slopes = (there[1] - there[0])[:, 0, 0]
    assert torch.allclose(space_weight(level, given, wanted).double(), slopes.square(), rtol=1e-5)


def test_flow_is_as_defined() -> None:
    """u = eps - x_0; x_0 = x_t - sigma u; eps = x_t + (1 - sigma) u."""
    level, (x0, eps) = LEVELS["flow"], draw_pair()
    x_t, u, sigma = add_noise(x0, eps, level), eps - x0, level.sigma[:, None, None]
    assert torch.allclose(x_t, (1 - sigma) * x0 + sigma * eps)
    assert torch.allclose(to_x0(u, x_t, level, "flow"), x_t - sigma * u)
    assert torch.allclose(convert(u, x_t, level, "flow", "eps"), x_t + (1 - sigma) * u)
    slower = NoiseLevel.from_flow(level.sigma + 1e-6)
    assert torch.allclose((add_noise(x0, eps, slower) - x_t) / 1e-6, u)


def test_eap_weights_of_stable_diffusion() -> None:
    """The x0 loss of EAP hides these weights over eps at t = 1, 401, 801, 981 of SD 1.4's schedule."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.double) ** 2
    weights = space_weight(NoiseLevel.from_alpha_bar(torch.cumprod(1 - betas, 0)), "eps", "x0")
    expected = torch.tensor([0.0017, 1.36, 26, 172])
    assert torch.allclose(weights[[1, 401, 801, 981]], expected, rtol=0.02)
    visited = weights[torch.arange(1, 1000, 20)]
    assert visited.mean().item() == pytest.approx(18.5, rel=0.01)
    assert (visited[-5:].sum() / visited.sum()).item() == pytest.approx(0.62, abs=0.01)
    assert (visited[-10:].sum() / visited.sum()).item() == pytest.approx(0.84, abs=0.01)


def test_fp32_numbers_are_those_of_alpha_bar() -> None:
    """Levels in fp64 lose nothing: states and weights are to the bit those of alpha_bar in fp32."""
    rng = torch.Generator().manual_seed(0)
    bar = torch.rand(10_000, generator=rng).clamp(1e-3, 1 - 1e-3)
    x0, eps = torch.randn(2, 10_000, 3, generator=rng)
    level, a = NoiseLevel.from_alpha_bar(bar), bar[:, None]
    assert torch.equal(level.alpha.square().float(), bar)
    assert torch.equal(add_noise(x0, eps, level), a.sqrt() * x0 + (1 - a).sqrt() * eps)
    assert torch.equal(to_x0(eps, x0, level, "v"), a.sqrt() * x0 - (1 - a).sqrt() * eps)
    assert torch.equal(space_weight(level, "v", "eps"), (1 - bar) / ((1 - bar) / bar))
    assert torch.equal(space_weight(level, "eps", "x0"), (1 - bar) / bar)


def test_a_rounded_alpha_bar_preserves_the_variance_all_the_same() -> None:
    """The squares of levels that were rounded to fp32 sum to almost 1; a velocity is converted as if it were 1."""
    level = NoiseLevel.from_alpha_bar(torch.tensor([0.1, 0.3, 0.7, 0.9, 0.99]))
    assert not torch.equal(level.alpha.square() + level.sigma.square(), torch.ones(5, dtype=torch.double))
    (x_t, v), (alpha, sigma) = draw_pair(), (level.alpha[:, None, None], level.sigma[:, None, None])
    assert torch.allclose(to_x0(v, x_t, level, "v"), alpha * x_t - sigma * v, rtol=1e-13, atol=1e-13)


def test_rows_and_lengths() -> None:
    level = LEVELS["flow"]
    assert len(level) == 5 and level[1:3].sigma.tolist() == [0.3, 0.5]
    assert level[torch.tensor([4])].expand(3).sigma.tolist() == [0.99] * 3


def test_unknown_space() -> None:
    with pytest.raises(ValueError, match="no space 'score'; there are eps, v, x0, flow"):
        space_weight(LEVELS["flow"], "eps", "score")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_near_the_clean_end_half_precision_gives_what_fp32_gives(dtype):
    """alpha-bar of .99915 is 1.0 in bf16: its noise was 0, and dividing by it no number."""
    level = NoiseLevel.from_alpha_bar(torch.tensor([0.99915, 0.9983]))
    rng = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(2, 3, generator=rng).to(dtype) for _ in range(2))
    x_t = add_noise(x0, eps, level)
    assert x_t.dtype == torch.float32 and torch.equal(x_t, add_noise(x0.float(), eps.float(), level))
    for given, wanted in ((a, b) for a in SPACES for b in SPACES):
        found = convert(eps, x_t, level, given, wanted)
        assert torch.equal(found, convert(eps.float(), x_t, level, given, wanted)) and found.isfinite().all()


@pytest.mark.parametrize("space", SPACES)
def test_a_prediction_that_is_in_the_wanted_space_already_stays_to_the_bit(space):
    level, eps = NoiseLevel.from_alpha_bar(torch.tensor([1.0])), torch.randn(1, 5)
    assert torch.equal(convert(eps, eps, level, space, space), eps)
    assert torch.equal(convert(eps.bfloat16(), eps, level, space, space), eps.bfloat16().float())
