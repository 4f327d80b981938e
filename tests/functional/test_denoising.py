"""The denoising error: none for a perfect denoiser, the noise's own size for one that says nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from efface.functional.denoising import measure_denoising_errors
from efface.functional.schedules import NoiseLevel, Space

BARS = torch.linspace(0.999, 0.01, 50, dtype=torch.double)


def build_noise_level(t: Tensor) -> NoiseLevel:
    return NoiseLevel.from_alpha_bar(BARS[t])


@pytest.mark.parametrize("space", ["eps", "v", "x0"])
def test_a_perfect_denoiser_makes_no_error(space: Space) -> None:
    x0 = torch.randn(6, 2, 3, 3, dtype=torch.double)

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        a = BARS[t].view(-1, 1, 1, 1)
        eps = (x_t - a.sqrt() * x0) / (1 - a).sqrt()
        return {"eps": eps, "v": a.sqrt() * eps - (1 - a).sqrt() * x0, "x0": x0}[space]

    errors = measure_denoising_errors(
        predict, x0, build_noise_level, len(BARS), space, torch.Generator().manual_seed(0)
    )
    assert errors.shape == (6,) and errors.max() < 1e-8


def test_silence_is_as_wrong_as_the_noise_is_large() -> None:
    x0, rng = torch.zeros(4, 2, 3, 3), torch.Generator().manual_seed(7)
    times = torch.randint(50, (4,), generator=rng)
    eps = torch.randn(4, 2, 3, 3, generator=rng)
    seen: list[Tensor] = []

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return torch.zeros_like(x_t)

    errors = measure_denoising_errors(
        predict, x0, build_noise_level, len(BARS), "eps", torch.Generator().manual_seed(7)
    )
    assert torch.equal(seen[0], times)
    assert torch.allclose(errors, torch.stack([(e * e).sum() / 18 for e in eps]))
