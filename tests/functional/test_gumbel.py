from __future__ import annotations

import itertools
import math

import pytest
import torch

from efface.functional.gumbel import estimate_by_score, gumbel_softmax


def build_rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_hard_choice_is_one_hot_with_the_soft_gradient():
    values = torch.arange(5.0)
    grads = []
    for hard in (True, False):
        logits = torch.zeros(5, requires_grad=True)
        weights = gumbel_softmax(logits, 2.0, hard, build_rng())
        (weights * values).sum().backward()
        grads.append(logits.grad)
        if hard:
            assert torch.allclose(weights.sort().values, torch.tensor([0.0, 0, 0, 0, 1]), atol=1e-6)
    assert torch.allclose(grads[0], grads[1])
    assert grads[0].abs().sum() > 0


def test_choices_follow_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0])
    source = build_rng()
    counts = sum(gumbel_softmax(logits, 2.0, True, source) for _ in range(4000)) / 4000
    assert torch.allclose(counts, torch.softmax(logits, 0), atol=0.03)


def test_the_ends_of_a_uniform_number_have_finite_noise(monkeypatch):
    """EAP's guards: -log(-log(u + 1e-10) + 1e-10) is -log(log 1e10) at 0, and log 1e10 at 1."""
    monkeypatch.setattr(torch, "rand", lambda shape, generator: torch.tensor([0.0, 0.5, 1.0]))
    noise = torch.tensor([-math.log(10 * math.log(10)), -math.log(math.log(2)), 10 * math.log(10)])
    found = gumbel_softmax(torch.zeros(3), 4.0, False, build_rng())
    assert torch.allclose(found, torch.softmax(noise / 4, 0), rtol=1e-5)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature must be positive"):
        gumbel_softmax(torch.zeros(2), 0.0, True, build_rng())


def choose_soft_top(logits: torch.Tensor, temperature: float, seed: int, top: int) -> list[float]:
    """AGE's soft choice, number by number: softmax of noisy logits, all but the largest zeroed, the rest rescaled."""
    u = torch.rand(len(logits), generator=build_rng(seed)).double().tolist()
    noisy = [(float(x) - math.log(-math.log(v + 1e-10) + 1e-10)) / temperature for x, v in zip(logits, u, strict=True)]
    soft = [math.exp(x) / sum(map(math.exp, noisy)) for x in noisy]
    bound = sorted(soft)[-top]
    kept = [x if x >= bound else 0.0 for x in soft]
    return [x / sum(kept) for x in kept]


@pytest.mark.parametrize("top", [1, 2, 5, 7])
def test_a_soft_choice_of_the_likeliest_is_renormalised_and_so_is_its_gradient(top):
    values, start = torch.randn(7, generator=build_rng(3)).double(), torch.linspace(-1, 1, 7).double()
    for seed in range(5):
        logits = start.clone().requires_grad_()
        weights = gumbel_softmax(logits, 0.7, False, build_rng(seed), top)
        wanted = choose_soft_top(start, 0.7, seed, top)
        assert weights.tolist() == pytest.approx(wanted, rel=1e-5)
        assert sum(w > 0 for w in weights.tolist()) == top
        (grad,) = torch.autograd.grad((weights * values).sum(), logits)
        for i in range(7):
            moved = [start.clone(), start.clone()]
            moved[0][i] += 1e-4
            moved[1][i] -= 1e-4
            up, down = (
                sum(w * float(v) for w, v in zip(choose_soft_top(m, 0.7, seed, top), values, strict=True))
                for m in moved
            )
            assert grad[i].item() == pytest.approx((up - down) / 2e-4, abs=1e-3)


def test_a_hard_choice_is_one_hot_whatever_top_says():
    one, again = (gumbel_softmax(torch.zeros(6), 0.1, True, build_rng(1), top) for top in (0, 5))
    assert torch.equal(one, again)
    assert (one.sort().values - torch.tensor([0.0, 0, 0, 0, 0, 1])).abs().max() < 1e-6


def test_more_than_there_are_is_all_of_them():
    for seed in range(5):
        soft, all_, more = (
            gumbel_softmax(torch.zeros(50), 1.0, False, build_rng(seed), top=top) for top in (0, 50, 51)
        )
        assert torch.equal(soft, all_) and torch.equal(soft, more)


def test_a_mixture_of_fewer_than_none_is_refused():
    with pytest.raises(ValueError, match="at least 1, or all with top=0; got top=-1"):
        gumbel_softmax(torch.zeros(2), 1.0, False, build_rng(), top=-1)


def test_the_score_is_the_gradient_of_the_expected_value():
    """Averaged over all choices of three rows, each by its chance: exact, against autograd of the expectation."""
    logits, values = torch.tensor([0.3, -0.5, 1.0], requires_grad=True), torch.tensor([2.0, 5.0, -1.0])
    (wanted,) = torch.autograd.grad((logits.softmax(0) * values).sum(), logits)
    found = torch.zeros(3)
    for picks in itertools.product(range(3), repeat=3):
        chances = torch.stack([logits.log_softmax(0)[k] for k in picks])
        estimate = estimate_by_score(values[list(picks)], chances)
        assert estimate.item() == 0
        found += chances.sum().exp().detach() * torch.autograd.grad(estimate, logits)[0]
    assert torch.allclose(found, wanted, atol=1e-5)
    with pytest.raises(ValueError, match="needs at least 2; got 1"):
        estimate_by_score(values[:1], logits.log_softmax(0)[:1])


def test_a_row_counts_against_the_mean_of_the_others():
    for values in ([3.0, 1.0], [2.0, 5.0, -1.0, 6.0]):
        chances = torch.zeros(len(values), requires_grad=True)
        (grad,) = torch.autograd.grad(estimate_by_score(torch.tensor(values), chances), chances)
        others = [sum(values[:i] + values[i + 1 :]) / (len(values) - 1) for i in range(len(values))]
        assert grad.tolist() == pytest.approx([(v - o) / len(values) for v, o in zip(values, others, strict=True)])
