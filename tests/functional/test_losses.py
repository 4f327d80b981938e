from __future__ import annotations

import numpy as np
import pytest
import torch

from efface.functional.losses import apply_guidance, negative_guidance, rescale_guided, weighted_mse
from efface.functional.schedules import NoiseLevel, convert, space_weight


def draw_three() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    a, b, c = (torch.randn((4, 2, 3, 3), generator=rng, dtype=torch.double) for _ in range(3))
    return a, b, c


def test_eta_zero_is_the_unconditional_prediction():
    eps_0, eps_c, _ = draw_three()
    assert torch.equal(negative_guidance(eps_0, eps_c, 0.0), eps_0)


def test_target_is_guidance_with_the_sign_turned():
    eps_0, eps_c, _ = draw_three()
    assert torch.allclose(negative_guidance(eps_0, eps_c, 1.5), apply_guidance(eps_0, eps_c, -1.5))


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_rescaling_takes_each_rows_deviation_to_that_of_the_conditional_prediction(share):
    guided, eps_c, _ = (part.numpy() for part in draw_three())
    found = rescale_guided(torch.from_numpy(3 * guided), torch.from_numpy(eps_c), share).numpy()
    for one, wanted, row in zip(guided, eps_c, found, strict=True):
        assert np.allclose(row, share * one * wanted.std() / one.std() + (1 - share) * 3 * one)


def test_at_the_base_a_step_leads_away_from_the_concept():
    eps_0, eps_c, _ = draw_three()
    student = eps_c.clone().requires_grad_()
    ones = torch.ones(4)
    weighted_mse(student, negative_guidance(eps_0, eps_c, 1.0), ones).backward()
    moved = eps_c - 0.1 * student.grad
    assert (moved - eps_0).norm() < (eps_c - eps_0).norm()
    assert (moved - eps_c).norm() > 0


def test_x0_loss_is_the_eps_loss_weighted():
    eps_0, eps_c, student = draw_three()
    x_t = torch.randn_like(eps_0)
    a = NoiseLevel.from_alpha_bar(torch.tensor([0.99, 0.6, 0.2, 0.01], dtype=torch.double))
    x_0, x_c, x_s = (convert(p, x_t, a, "eps", "x0") for p in (eps_0, eps_c, student))
    in_x0 = (x_s - negative_guidance(x_0, x_c, 1.0)).square().mean()
    ours = weighted_mse(student, negative_guidance(eps_0, eps_c, 1.0), space_weight(a, "eps", "x0"))
    assert torch.allclose(ours.double(), in_x0, rtol=1e-5)
