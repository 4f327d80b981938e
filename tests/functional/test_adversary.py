"""Movers of inputs: against torch's own optimisers, rows that leave, and gradients that are not there."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from efface.functional.adversary import (
    NoGradient,
    NotFinite,
    RowwiseAdam,
    descend,
    differentiate_in_range,
    measure_steepness,
)


def draw_noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adam_against_torch(decay):
    start = draw_noise(3, 2, 4)
    ours, theirs = RowwiseAdam(start, 0.05, decay), start.clone().requires_grad_()
    adam = torch.optim.AdamW([theirs], lr=0.05, weight_decay=decay)
    for i in range(20):
        grad = draw_noise(3, 2, 4, seed=i + 1)
        ours.step(grad)
        theirs.grad = grad
        adam.step()
    assert torch.allclose(ours.at, theirs.detach(), atol=1e-6)
    assert torch.equal(start, draw_noise(3, 2, 4))


def test_rows_that_leave_do_not_change_the_others():
    whole, part = RowwiseAdam(draw_noise(4, 3), 0.05), RowwiseAdam(draw_noise(4, 3), 0.05)
    for i in range(10):
        grad = draw_noise(4, 3, seed=i + 1)
        whole.step(grad)
        part.step(grad if i < 5 else grad[[3, 1]])
        if i == 4:
            part.keep([3, 1])
    assert torch.equal(part.at, whole.at[[3, 1]])


def test_each_rows_gradient_is_its_own_also_where_gradients_are_off():
    at, scale = draw_noise(3, 2), torch.tensor([1.0, 10.0, 0.0])
    with torch.no_grad():
        errors, grad = measure_steepness(lambda x: scale * x.square().sum(1), at)
    assert torch.allclose(errors, scale * at.square().sum(1))
    assert torch.allclose(grad, 2 * scale[:, None] * at)
    assert not at.requires_grad and not errors.requires_grad


def test_no_gradient_is_no_attack():
    at = draw_noise(2, 2)
    for deaf in (lambda x: 0 * x.sum(1), lambda x: torch.ones(2, requires_grad=True) + 0, lambda x: x.detach().sum(1)):
        with pytest.raises(NoGradient, match="no gradient reaches the prompt"):
            measure_steepness(deaf, at)
    with pytest.raises(NotFinite, match="not finite"):
        measure_steepness(lambda x: (x - x.detach()).abs().sqrt().sum(1) + x.sum(1), at)
    with pytest.raises(ValueError, match="lr is above 0"):
        RowwiseAdam(at, 0.0)


@pytest.mark.parametrize(("gain", "tries"), [(300, [4096.0, 256.0, 16.0]), (40_000, [2.0, 1.0])])
def test_a_factor_that_overflows_is_made_smaller_until_the_gradient_is_finite(gain, tries):
    """A network of fp16 whose backward pass overflows above 65504: small gradients need the factor, large ones less.

    Each factor is a sixteenth of the last, but at least 1; 16 * 300 and 1 * 40,000 are the first below the bound.
    """
    at, tried = torch.tensor([[1.0, -2.0]]), []

    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, grad):
            tried.append(float(grad.max()))
            return (grad * gain).half().float()

    errors, grad = measure_steepness(lambda x: Half.apply(x).sum(1), at, tries[0])
    assert torch.equal(grad, torch.full((1, 2), float(gain))) and torch.equal(errors, at.sum(1))
    assert tried == tries
    with pytest.raises(NotFinite, match="gradient is not finite"):
        measure_steepness(lambda x: (x - x.detach()).abs().sqrt().sum(1) + x.sum(1), at, 4.0)


@pytest.mark.parametrize(("first", "tries"), [(4096.0, [4096.0, 256.0]), (16.0, [16.0])])
def test_training_lowers_the_factor_until_no_gradient_overflows(first, tries):
    """100 times the factor overflows in fp16 above 655; the small gradient of the other weight needs a large one."""
    tried = []

    def differentiate(factor):
        tried.append(factor)
        grads = [(torch.tensor([steep]) * factor).half().float() / factor for steep in (100.0, 0.0)]
        return torch.ones(3), grads

    grads, moves = differentiate_in_range(differentiate, first, "at step 1")
    assert tried == tries and moves
    assert torch.equal(torch.cat(list(grads)), torch.tensor([100.0, 0.0]))


def test_training_tells_an_error_that_is_no_number_from_a_gradient_that_overflows():
    tried = []

    def differentiate(errors, grad, factor):
        tried.append(factor)
        return torch.tensor(errors), [torch.tensor(grad)]

    for errors, grad, tries in (([1.0, math.nan], [1.0], 1), ([1.0], [1.0, math.inf], 3)):
        tried.clear()
        with pytest.raises(NotFinite, match="at step 7 the loss or its gradient is not finite"):
            differentiate_in_range(partial(differentiate, errors, grad), 64.0, "at step 7")
        assert len(tried) == tries  # 64, 4 and 1
    assert differentiate_in_range(partial(differentiate, [1.0], [0.0, 0.0]), 1.0, "at step 1")[1] is False


def test_one_number_of_the_gradient_that_is_not_finite_is_an_error():
    with pytest.raises(NotFinite, match="gradient is not finite"):
        measure_steepness(lambda x: x.abs().sqrt().sum(1), torch.tensor([[1.0, 4.0], [0.0, 1.0]]))


def test_an_error_that_is_no_number_is_not_a_gradient_to_follow():
    with pytest.raises(NotFinite, match="loss is not finite"):
        measure_steepness(lambda x: x.sum(1) + torch.tensor([float("nan"), 0.0]), draw_noise(2, 2))


@pytest.mark.parametrize("factor", [1.0, 64.0])
def test_gradients_are_divided_by_the_factor(factor):
    """Adam's first step is lr g / (|g| + 1e-8), half of lr where the gradient is 1e-8."""
    assert torch.allclose(
        descend(lambda x: 1e-8 * x.sum(1), torch.zeros(1, 2), 1, 0.1, factor=factor), torch.full((1, 2), -0.05)
    )


@pytest.mark.parametrize("factor", [1.0, 16.0])
def test_a_gradient_that_is_no_number_shows(factor):
    """Else a training on what an attack found would go on, with rows that were never attacked."""

    def error(x: torch.Tensor) -> torch.Tensor:
        return (torch.tensor([float("nan"), 1.0]) * x).sum(1)

    assert descend(error, torch.zeros(1, 2), 1, 0.1, factor=factor).isnan().tolist() == [[True, False]]


@pytest.mark.parametrize(
    "wrong", [{"steps": -1}, {"lr": 0.0}, {"lr": -0.1}, {"radius": 0.0}, {"radius": -1.0}, {"rule": "newton"}]
)
def test_settings_with_which_nothing_descends_are_refused(wrong):
    with pytest.raises(ValueError, match=r"lr and radius above 0|no rule 'newton'; there are adam, sign"):
        descend(lambda x: x.square().sum(1), draw_noise(2, 2), **{"steps": 1, "lr": 0.1, **wrong})


def test_numbers_whose_gradient_overflows_by_the_factor_move_by_a_smaller_one():
    start = torch.tensor([[1.0, 1.0, 1.0]])
    steep = torch.tensor([1e38, 1.0, -1e38])
    moved = descend(lambda x: (steep * x).sum(1), start, 3, 0.1, "sign", factor=16.0)
    assert torch.allclose(moved, torch.tensor([[0.7, 0.7, 1.3]]))
    for rule in ("adam", "sign"):
        assert torch.equal(descend(lambda x: x.square().sum(1), start, 0, 0.1, rule, radius=0.5), start)
        ends = torch.tensor([[1.0, -1.0]])
        plain, scaled = (descend(lambda x: x.square().sum(1), ends, 4, 0.1, rule, 0.25, by) for by in (1.0, 64.0))
        assert torch.allclose(plain, scaled) and torch.allclose(plain, 0.75 * ends, atol=0.01)
