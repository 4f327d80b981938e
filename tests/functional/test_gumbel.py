from __future__ import annotations

import pytest
import torch

from efface.functional.gumbel import gumbel_softmax


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
