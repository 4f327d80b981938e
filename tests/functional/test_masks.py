from __future__ import annotations

import math

import pytest
import torch

from efface.functional import masks
from efface.functional.masks import binarise, choose_largest, hard_concrete, keep_probability, straight_through


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_straight_through_is_binary_with_the_sigmoids_gradient(tau):
    logits = torch.linspace(-5, 5, 100).requires_grad_()
    mask = straight_through(logits, tau)
    assert set(mask.tolist()) == {0.0, 1.0}
    assert torch.equal(mask.bool(), logits > 0)
    assert straight_through(torch.zeros(1), tau).item() == 0  # as `binarise` takes it
    (grad,) = torch.autograd.grad(mask.sum(), logits)
    slope = [math.exp(-s / tau) / (1 + math.exp(-s / tau)) ** 2 / tau for s in logits.tolist()]
    assert torch.allclose(grad, torch.tensor(slope), atol=1e-6)


@pytest.mark.parametrize("tau", [2 / 3, 1.0])
@pytest.mark.parametrize("logit", [-3.0, -0.5, 0.0, 1.0, 4.0])
def test_expected_l0_is_what_samples_say(tau, logit):
    """Louizos et al., eq. 12, by Monte Carlo; the tolerance is four standard errors."""
    n = 200_000
    u = torch.rand(n, generator=torch.Generator().manual_seed(1)).clamp(1e-6, 1 - 1e-6)
    samples = hard_concrete(torch.full((n,), logit), tau, u)
    expected = keep_probability(torch.tensor(logit), tau).item()
    assert 0 <= samples.min() <= samples.max() <= 1
    assert (samples != 0).float().mean().item() == pytest.approx(
        expected, abs=4 * math.sqrt(expected * (1 - expected) / n) + 1e-6
    )
    # Both ends are reached exactly: that is what sets it apart from a sigmoid with noise.
    assert (samples == 0).any() or expected > 0.9999
    assert (samples == 1).any() or logit < -2


def test_hard_concrete_moves_with_the_logits():
    logits = torch.zeros(1000, requires_grad=True)
    u = torch.rand(1000, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    (grad,) = torch.autograd.grad(hard_concrete(logits, 2 / 3, u).sum(), logits)
    assert (grad >= 0).all()
    assert (grad > 0).float().mean() > 0.3


@pytest.mark.parametrize("sparsity", [0.01, 0.1, 1 / 3, 0.98])
def test_an_exact_share_goes_over_all_tensors_the_lowest_first(sparsity):
    rng = torch.Generator().manual_seed(0)
    logits = [torch.randn(7, 11, generator=rng), torch.randn(5, 3, 2, 2, generator=rng) - 1]
    masks = binarise(logits, sparsity)
    every, kept = (torch.cat([x.flatten() for x in xs]) for xs in (logits, masks))
    assert [m.shape for m in masks] == [s.shape for s in logits]
    assert int((~kept).sum()) == round(sparsity * 137)
    assert every[~kept].max() < every[kept].min()


def test_ties_are_cut_exactly():
    masks = binarise([torch.zeros(10), torch.zeros(10)], 0.25)
    assert sum(int((~m).sum()) for m in masks) == 5


def test_without_a_share_the_logits_say():
    assert binarise([torch.tensor([-1.0, 0.0, 0.1, 2.0])])[0].tolist() == [False, False, True, True]


@pytest.mark.parametrize("bad", [-0.1, 1.0, 2.0])
def test_shares_outside_are_refused(bad):
    with pytest.raises(ValueError, match=f"from 0 to below 1, got {bad}"):
        binarise([torch.zeros(3)], bad)


@pytest.mark.parametrize("count", [0, 1, 5, 700, 6777, 6778])
@pytest.mark.parametrize("ties", [False, True])
def test_the_largest_of_all_tensors_are_those_that_a_stable_sort_puts_first(count, ties):
    rng = torch.Generator().manual_seed(3)
    sizes = [(1000,), (1,), (7, 111), (20, 250)]
    parts = [torch.randint(-3, 3, n, generator=rng).float() if ties else torch.randn(n, generator=rng) for n in sizes]
    every = torch.cat([part.flatten() for part in parts])
    wanted = torch.zeros_like(every, dtype=torch.bool)
    wanted[torch.argsort(every, descending=True, stable=True)[:count]] = True
    found = choose_largest(parts, count)
    assert [mask.shape for mask in found] == [part.shape for part in parts]
    assert torch.equal(torch.cat([mask.flatten() for mask in found]), wanted)


def test_the_smallest_numbers_below_zero_are_below_it_and_a_single_number_can_be_chosen():
    tiny = torch.tensor([-1e-45, 0.0, 1e-45, -0.0])  # the last bits of fp32
    assert [int(mask.sum()) for mask in choose_largest([tiny[:1], tiny[1:2]], 1)] == [0, 1]
    assert choose_largest([tiny], 1)[0].tolist() == [False, False, True, False]
    assert choose_largest([tiny[[3, 1]]], 1)[0].tolist() == [True, False]  # -0 is 0: the first of equal ones
    assert choose_largest([tiny[:1]], 1)[0].tolist() == [True]


def test_numbers_are_gone_through_in_full_pieces(monkeypatch):
    monkeypatch.setattr(masks, "PIECE", 10)
    sizes = [4, 4, 4, 25, 3]
    seen = [len(piece) for piece in masks._gather_pieces([torch.zeros(n) for n in sizes])]
    assert seen == [8, 4, 10, 10, 8] and sum(seen) == sum(sizes)
    assert [len(piece) for piece in masks._gather_pieces([torch.zeros(n) for n in (4, 6, 1)])] == [10, 1]
