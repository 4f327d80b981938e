"""Movers of inputs: against torch's own optimisers, rows that leave, and gradients that are not there."""

from __future__ import annotations

import pytest
import torch

from efface.functional.adversary import NoGradient, NotFinite, RowwiseAdam, descend, measure_steepness


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adam_against_torch(decay):
    start = noise(3, 2, 4)
    ours, theirs = RowwiseAdam(start, 0.05, decay), start.clone().requires_grad_()
    adam = torch.optim.AdamW([theirs], lr=0.05, weight_decay=decay)
    for i in range(20):
        grad = noise(3, 2, 4, seed=i + 1)
        ours.step(grad)
        theirs.grad = grad
        adam.step()
    assert torch.allclose(ours.at, theirs.detach(), atol=1e-6)
    assert torch.equal(start, noise(3, 2, 4))


def test_rows_that_leave_do_not_change_the_others():
    whole, part = RowwiseAdam(noise(4, 3), 0.05), RowwiseAdam(noise(4, 3), 0.05)
    for i in range(10):
        grad = noise(4, 3, seed=i + 1)
        whole.step(grad)
        part.step(grad if i < 5 else grad[[3, 1]])
        if i == 4:
            part.keep([3, 1])
    assert torch.equal(part.at, whole.at[[3, 1]])


def test_each_rows_gradient_is_its_own_also_where_gradients_are_off():
    at, scale = noise(3, 2), torch.tensor([1.0, 10.0, 0.0])
    with torch.no_grad():
        errors, grad = measure_steepness(lambda x: scale * x.square().sum(1), at)
    assert torch.allclose(errors, scale * at.square().sum(1))
    assert torch.allclose(grad, 2 * scale[:, None] * at)
    assert not at.requires_grad and not errors.requires_grad


def test_no_gradient_is_no_attack():
    at = noise(2, 2)
    for deaf in (lambda x: 0 * x.sum(1), lambda x: torch.ones(2, requires_grad=True) + 0, lambda x: x.detach().sum(1)):
        with pytest.raises(NoGradient, match="no gradient reaches the prompt"):
            measure_steepness(deaf, at)
    with pytest.raises(NotFinite, match="not finite"):
        measure_steepness(lambda x: (x - x.detach()).abs().sqrt().sum(1) + x.sum(1), at)
    with pytest.raises(ValueError, match="lr is above 0"):
        RowwiseAdam(at, 0.0)


def test_a_factor_that_overflows_is_made_smaller_until_the_gradient_is_finite():
    """A network of fp16 whose backward pass overflows above 65504: small gradients need the factor, large ones less."""
    at, tried = torch.tensor([[1.0, -2.0]]), []

    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, grad):
            tried.append(float(grad.max()))
            return (grad * 300).half().float()

    errors, grad = measure_steepness(lambda x: Half.apply(x).sum(1), at, 4096.0)
    assert torch.equal(grad, torch.full((1, 2), 300.0)) and torch.equal(errors, at.sum(1))
    assert tried == [4096.0, 256.0, 16.0]  # 16 * 300 is the first below the bound; each is a sixteenth of the last
    with pytest.raises(NotFinite, match="gradient is not finite"):
        measure_steepness(lambda x: (x - x.detach()).abs().sqrt().sum(1) + x.sum(1), at, 4.0)


def test_an_error_that_is_no_number_is_not_a_gradient_to_follow():
    with pytest.raises(NotFinite, match="loss is not finite"):
        measure_steepness(lambda x: x.sum(1) + torch.tensor([float("nan"), 0.0]), noise(2, 2))


def test_numbers_whose_gradient_overflows_stay_put_and_the_others_move():
    start = torch.tensor([[1.0, 1.0]])
    steep = torch.tensor([1e38, 1.0])
    moved = descend(lambda x: (steep * x).sum(1), start, 3, 0.1, "sign", factor=16.0)
    assert torch.allclose(moved, torch.tensor([[1.0, 0.7]]))
    for rule in ("adam", "sign"):
        assert torch.equal(descend(lambda x: x.square().sum(1), start, 0, 0.1, rule, radius=0.5), start)
        plain, scaled = (descend(lambda x: x.square().sum(1), start, 4, 0.1, rule, 0.25, by) for by in (1.0, 64.0))
        assert torch.allclose(plain, scaled) and torch.allclose(plain, torch.full((1, 2), 0.75), atol=0.01)
