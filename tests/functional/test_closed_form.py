"""The closed forms against a numerical minimiser of what they claim to minimise, and their invariants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from efface.functional.adversary import find_adversarial
from efface.functional.closed_form import build_null_projector, solve_least_squares, solve_null_space, solve_shared

D, M, N, K = 6, 4, 3, 2


@pytest.fixture
def toy() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = {"base": (M, D), "inputs": (N, D), "outputs": (N, M), "kept": (K, D)}
    return {name: torch.randn(shape, generator=rng, dtype=torch.double) for name, shape in shapes.items()}


def find_minimiser(loss: Callable[[Tensor], Tensor], *shape: int) -> Tensor:
    """Where scipy's BFGS finds the least loss, with gradients by torch."""

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.tensor(flat, requires_grad=True)
        out = loss(x.reshape(shape))
        (grad,) = torch.autograd.grad(out, x)
        return out.item(), grad.numpy()

    start = np.zeros(int(np.prod(shape)))
    found = minimize(value, start, jac=True, method="L-BFGS-B", options={"ftol": 0, "gtol": 1e-11, "maxiter": 10_000})
    return torch.from_numpy(found.x).reshape(shape)


def test_least_squares_is_the_minimum(toy):
    base, c, v, k = toy.values()

    def loss(w: Tensor) -> Tensor:
        erased, held = (c @ w.T - v).square().sum(), (k @ w.T - k @ base.T).square().sum()
        return 2.0 * erased + 3.0 * held + 0.5 * (w - base).square().sum()

    assert torch.allclose(
        solve_least_squares(**toy, lamb=0.5, erase=2.0, preserve=3.0), find_minimiser(loss, M, D), atol=1e-6
    )


def test_least_squares_is_the_papers_equation_7(toy):
    base, c, v, k = toy.values()
    left, right = 0.5 * base, 0.5 * torch.eye(D, dtype=torch.double)
    for c_i, v_i in zip(c, v, strict=True):
        left, right = left + 2.0 * torch.outer(v_i, c_i), right + 2.0 * torch.outer(c_i, c_i)
    for k_i in k:
        left, right = left + 3.0 * torch.outer(base @ k_i, k_i), right + 3.0 * torch.outer(k_i, k_i)
    edit = solve_least_squares(**toy, lamb=0.5, erase=2.0, preserve=3.0)
    assert torch.allclose(edit, left @ torch.linalg.inv(right), atol=1e-12)


def test_least_squares_limits(toy):
    base, c, v, k = toy.values()
    assert torch.equal(solve_least_squares(base, c[:0], v[:0], k, 0.5), base)
    assert torch.allclose(solve_least_squares(base, c, v, k, 1e12), base, atol=1e-9)
    assert torch.allclose(c @ solve_least_squares(base, c, v, k, 0.5, erase=1e12).T, v, atol=1e-6)
    held = solve_least_squares(base, c, v, k, 0.5, preserve=1e12)
    assert torch.allclose(k @ held.T, k @ base.T, atol=1e-6)
    assert not torch.allclose(held, base, atol=1e-2)


def test_one_matrix_edits_every_layer(toy):
    """Where v* = W0 c*, editing the identity and multiplying is editing the layer."""
    base, c, _, k = toy.values()
    c_star = c.flip(0) + 1.0
    edit = solve_least_squares(base, c, c_star @ base.T, k, 0.5, 2.0, 3.0)
    assert torch.allclose(base @ solve_shared(c, c_star, k, 0.5, 2.0, 3.0), edit, atol=1e-12)
    projector = build_null_projector(k, 1e-6)
    matrix = solve_null_space(torch.eye(D), c, c_star, projector, 0.5)
    assert torch.allclose(base @ matrix, solve_null_space(base, c, c_star @ base.T, projector, 0.5), atol=1e-12)


@pytest.mark.parametrize("reg", [1e-3, 0.1])
def test_adversarial_is_the_minimum_over_all_layers(toy, reg):
    c = toy["inputs"]
    layers = [toy["base"], toy["base"].flip(0) ** 2, toy["outputs"] @ toy["base"]]
    edit = solve_least_squares(torch.eye(D), c, c.flip(0), toy["kept"], 0.1)

    def loss(c_adv: Tensor) -> Tensor:
        answer = sum((c_adv @ (w @ edit).T - c @ w.T).square().sum() for w in layers)
        return answer + reg * c_adv.square().sum()

    gram = torch.stack([w.T @ w for w in layers]).sum(0)
    assert torch.allclose(find_adversarial(c, gram, edit, reg), find_minimiser(loss, N, D), atol=1e-5)


def test_against_an_unedited_model_the_attack_is_the_target_itself(toy):
    gram = toy["base"].T @ toy["base"] + torch.eye(D)
    assert torch.allclose(find_adversarial(toy["inputs"], gram, torch.eye(D), 1e-12), toy["inputs"], atol=1e-9)


def test_null_projector_against_the_singular_vectors(toy):
    kept = torch.cat([toy["kept"], toy["kept"].sum(0, keepdim=True)])
    projector = build_null_projector(kept, 1e-6)
    _, values, rows = torch.linalg.svd(kept, full_matrices=True)
    rank = int((values > 1e-6 * values[0]).sum())
    assert rank == K
    assert torch.allclose(projector, rows[rank:].T @ rows[rank:], atol=1e-10)
    assert torch.allclose(projector @ projector, projector, atol=1e-12)
    assert (kept @ projector).abs().max() < 1e-12


def test_null_projector_threshold_frees_what_is_hardly_used():
    kept = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1e-3, 0.0]])
    assert torch.allclose(build_null_projector(kept, 1e-2).diagonal(), torch.tensor([0.0, 1, 1]).double())
    assert torch.allclose(build_null_projector(kept, 1e-4).diagonal(), torch.tensor([0.0, 0, 1]).double())
    assert torch.equal(build_null_projector(kept[:0], 1e-4), torch.eye(3).double())
    for scale in (1e-3, 1e3):  # the threshold is a share of the largest
        assert torch.allclose(build_null_projector(scale * kept, 1e-2), build_null_projector(kept, 1e-2))
        assert torch.allclose(build_null_projector(scale * kept, 1e-4), build_null_projector(kept, 1e-4))


def test_null_space_is_the_minimum_and_leaves_the_preserved_alone(toy):
    base, c, v, k = toy.values()
    projector = build_null_projector(k, 1e-6)

    def loss(delta: Tensor) -> Tensor:
        moved = delta @ projector
        return (c @ (base + moved).T - v).square().sum() + 0.5 * moved.square().sum()

    edit = solve_null_space(base, c, v, projector, 0.5)
    assert torch.allclose(edit, base + find_minimiser(loss, M, D) @ projector, atol=1e-6)
    assert torch.allclose(k @ edit.T, k @ base.T, atol=1e-12)
    assert not torch.allclose(c @ edit.T, c @ base.T, atol=1e-2)
    assert torch.allclose(c @ solve_null_space(base, c, v, projector, 1e-12).T, v, atol=1e-6)


def test_with_all_directions_free_it_is_least_squares_with_nothing_kept(toy):
    base, c, v, k = toy.values()
    free = solve_null_space(base, c, v, torch.eye(D), 0.5)
    assert torch.allclose(free, solve_least_squares(base, c, v, k[:0], 0.5), atol=1e-12)
