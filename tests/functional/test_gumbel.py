from __future__ import annotations

import itertools

import pytest
import torch

from efface.functional.gumbel import gumbel_softmax, score


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_hard_choice_is_one_hot_with_the_soft_gradient():
    values = torch.arange(5.0)
    grads = []
    for hard in (True, False):
        logits = torch.zeros(5, requires_grad=True)
        weights = gumbel_softmax(logits, 2.0, hard, rng())
        (weights * values).sum().backward()
        grads.append(logits.grad)
        if hard:
            assert torch.allclose(weights.sort().values, torch.tensor([0.0, 0, 0, 0, 1]), atol=1e-6)
    assert torch.allclose(grads[0], grads[1])
    assert grads[0].abs().sum() > 0


def test_choices_follow_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0])
    source = rng()
    counts = sum(gumbel_softmax(logits, 2.0, True, source) for _ in range(4000)) / 4000
    assert torch.allclose(counts, torch.softmax(logits, 0), atol=0.03)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature must be positive"):
        gumbel_softmax(torch.zeros(2), 0.0, True, rng())


@pytest.mark.parametrize("n", [2, 5])
def test_the_two_best_are_mixed_by_their_soft_weights_with_the_soft_gradient(n):
    values = torch.randn(n, generator=rng(3))
    for seed in range(10):
        grads, weights = [], []
        for hard in (True, False):
            logits = torch.linspace(-1, 1, n).requires_grad_()
            weights.append(gumbel_softmax(logits, 1.0, hard, rng(seed), top=2))
            grads.append(torch.autograd.grad((weights[-1] * values).sum(), logits)[0])
        few, soft = (w.detach() for w in weights)
        best = soft.sort(descending=True).indices[:2]
        assert int((few > 1e-6).sum()) == 2
        assert few.sum().item() == pytest.approx(1, abs=1e-6)
        assert torch.allclose(few[best], soft[best] / soft[best].sum(), atol=1e-6)
        assert torch.allclose(*grads)


def test_more_than_there_are_is_all_of_them():
    soft, few = (gumbel_softmax(torch.zeros(3), 1.0, hard, rng(), top=9) for hard in (False, True))
    assert torch.allclose(soft, few, atol=1e-6)


def test_a_choice_is_of_at_least_one():
    with pytest.raises(ValueError, match="at least 1, got top=0"):
        gumbel_softmax(torch.zeros(2), 1.0, True, rng(), top=0)


def test_the_score_is_the_gradient_of_the_expected_value():
    """Averaged over all choices of three rows, each by its chance: exact, against autograd of the expectation."""
    logits, values = torch.tensor([0.3, -0.5, 1.0], requires_grad=True), torch.tensor([2.0, 5.0, -1.0])
    (wanted,) = torch.autograd.grad((logits.softmax(0) * values).sum(), logits)
    found = torch.zeros(3)
    for picks in itertools.product(range(3), repeat=3):
        chances = torch.stack([logits.log_softmax(0)[k] for k in picks])
        estimate = score(values[list(picks)], chances)
        assert estimate.item() == 0
        found += chances.sum().exp().detach() * torch.autograd.grad(estimate, logits)[0]
    assert torch.allclose(found, wanted, atol=1e-5)
    with pytest.raises(ValueError, match="needs at least 2; got 1"):
        score(values[:1], logits.log_softmax(0)[:1])
