"""Discrete projections against minimisers and brute force, and substitutions against every substitution."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from efface.functional.tokens import (
    compute_slopes,
    draw_tokens,
    find_difference,
    find_nearest,
    project_to_simplex,
    substitute,
)


def draw_noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build_rngs(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_projection_against_a_minimiser(scale):
    points = (scale * draw_noise(3, 2, 5, seed=int(scale * 100))).double()
    ours = project_to_simplex(points)
    for point, found in zip(points.flatten(0, 1).numpy(), ours.flatten(0, 1).numpy(), strict=True):
        theirs = minimize(
            lambda x, point=point: ((x - point) ** 2).sum() / scale**2,
            np.full(5, 0.2),
            jac=lambda x, point=point: 2 * (x - point) / scale**2,
            bounds=[(0, 1)] * 5,
            constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": lambda x: np.ones(5)},
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 500},
        )
        assert np.allclose(found, theirs.x, atol=1e-5)


def test_the_projection_by_every_support():
    """Of all sets of numbers that may stay above zero, the one whose projection is nearest."""
    point = draw_noise(6, seed=3).double()
    best = None
    for size in range(1, 7):
        for support in itertools.combinations(range(6), size):
            held = point[list(support)]
            candidate = torch.zeros(6, dtype=torch.double)
            candidate[list(support)] = held - (held.sum() - 1) / size
            if (candidate >= 0).all() and (best is None or (candidate - point).norm() < (best - point).norm()):
                best = candidate
    assert torch.allclose(project_to_simplex(point), best, atol=1e-12)


def test_what_lies_on_the_simplex_stays_and_large_vocabularies_sum_to_one():
    on = torch.softmax(draw_noise(4, 7), dim=-1)
    assert torch.allclose(project_to_simplex(on), on, atol=1e-6)
    assert torch.equal(project_to_simplex(torch.tensor([0.0, 5.0, 1.0])), torch.tensor([0.0, 1.0, 0.0]))
    many = project_to_simplex(1e-3 * draw_noise(2, 3, 49408))
    assert (many >= 0).all()
    assert torch.allclose(many.sum(-1), torch.ones(2, 3), atol=1e-5)


def test_drawing_follows_the_weights_and_the_rows_own_rng():
    weights = torch.tensor([[[0.5, 0.5, 0.0]] * 2000, [[0.1, 0.2, 0.7]] * 2000])
    picks = draw_tokens(weights, build_rngs(0, 1))
    shares = torch.stack([(picks == v).float().mean(dim=1) for v in range(3)], dim=1)
    assert torch.allclose(shares, weights[:, 0], atol=0.04)
    assert shares[0, 2] == 0
    assert torch.equal(draw_tokens(weights[1:], build_rngs(1)), picks[1:])


def test_nearest_by_brute_force():
    x, table = draw_noise(2, 3, 4), draw_noise(9, 4, seed=1) * torch.arange(1, 10)[:, None]
    found = find_nearest(x, table)
    for i, j in itertools.product(range(2), range(3)):
        cosines = [float(x[i, j] @ row / (x[i, j].norm() * row.norm())) for row in table]
        assert found[i, j] == int(np.argmax(cosines))


def test_slopes_are_the_gradient_at_the_one_hot_choice():
    table, ids, way = draw_noise(6, 4), torch.tensor([[1, 5, 5], [0, 2, 3]]), draw_noise(2, 3, 4, seed=2)
    hot = torch.nn.functional.one_hot(ids, 6).float().requires_grad_()
    (through,) = torch.autograd.grad(((hot @ table) * way).sin().sum(), [hot])
    at = table[ids].requires_grad_()
    (grad,) = torch.autograd.grad((at * way).sin().sum(), [at])
    assert torch.allclose(compute_slopes(grad, table), through, atol=1e-5)


def test_substitutions_change_one_token_for_a_promising_one():
    """On an error that is linear in each token the best of all single changes is among them."""
    table, goal = draw_noise(8, 4), draw_noise(2, 3, 4, seed=1)
    ids = torch.tensor([[0, 1, 2], [3, 4, 5]])
    slope = compute_slopes(goal, table)
    slope[:, :, 7] = float("inf")
    tried = substitute(ids, slope, 1, 6, build_rngs(0, 1))
    assert tried.shape == (2, 6, 3)
    for i in range(2):
        errors = {}
        for j, v in itertools.product(range(3), range(7)):
            other = ids[i].clone()
            other[j] = v
            errors[j, v] = float((table[other] * goal[i]).sum())
        for c, other in enumerate(tried[i]):
            j = c % 3
            assert (other != ids[i]).nonzero().flatten().tolist() in ([], [j])
            assert other[j] == min(range(7), key=lambda v, j=j: errors[j, v])
        assert min(errors.values()) in [pytest.approx(float((table[o] * goal[i]).sum())) for o in tried[i]]


def test_barred_tokens_are_never_taken_and_rows_are_independent():
    slope = draw_noise(2, 3, 8)
    slope[:, :, 2:] = float("inf")
    ids = torch.full((2, 3), 7)
    tried = substitute(ids, slope, 5, 60, build_rngs(4, 5))
    changed = tried[tried != 7]
    assert set(changed.tolist()) == {0, 1}
    assert torch.equal(substitute(ids[1:], slope[1:], 5, 60, build_rngs(5)), tried[1:])


def test_where_rows_have_fewer_open_tokens_none_of_the_barred_is_taken():
    slope = draw_noise(2, 3, 8)
    slope[0, :, 2:] = float("inf")
    tried = substitute(torch.full((2, 3), 7), slope, 5, 60, build_rngs(4, 5))
    assert set(tried[0].flatten().tolist()) == {0, 1, 7}


def test_the_difference_is_between_the_common_ends():
    """Against an alignment token by token, over all short pairs: a shared beginning first, then a shared end."""
    every = [list(ids) for n in range(1, 4) for ids in itertools.product(range(2), repeat=n)]
    for old, new in itertools.product(every, repeat=2):
        first = 0
        for a, b in zip(old, new, strict=False):
            if a != b:
                break
            first += 1
        i, j = len(old) - 1, len(new) - 1
        while i >= first and j >= first and old[i] == new[j]:
            i, j = i - 1, j - 1
        assert find_difference(old, new) == (range(first, i + 1), range(first, j + 1))
    assert find_difference([9, 1, 5, 7, 8], [9, 2, 3, 5, 7, 8]) == (range(1, 2), range(1, 3))
