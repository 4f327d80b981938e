from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from benchmarks.optimiser import Operations
from efface.functional import value_function
from efface.functional.value_function import inner, multiplier
from efface.planning.tracker import AllocationTracker


def compute_gradients(seed: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Of forgetting and of remaining, each over two tensors."""
    rng = torch.Generator().manual_seed(seed)
    return tuple([torch.randn(2, 2, generator=rng), torch.randn(3, generator=rng)] for _ in range(2))  # type: ignore[return-value]


def compute_share(forget: list[torch.Tensor], remain: list[torch.Tensor], a_t: float) -> float:
    return multiplier(inner(forget, forget).item(), inner(forget, remain).item(), a_t)


def flatten_parts(parts: list[torch.Tensor]) -> np.ndarray:
    return torch.cat([part.flatten() for part in parts]).double().numpy()


@pytest.mark.parametrize("a_t", [-3.0, 0.0, 0.5, 4.0])
@pytest.mark.parametrize("seed", range(6))
def test_the_step_is_the_solution_of_the_quadratic_programme(seed, a_t):
    """argmin 1/2 |grad L_r - delta|^2 subject to <grad g, delta> >= a_t, by SLSQP."""
    forget, remain = compute_gradients(seed)
    f, r = flatten_parts(forget), flatten_parts(remain)
    solution = minimize(
        lambda d: 0.5 * ((r - d) ** 2).sum(),
        np.zeros_like(r),
        jac=lambda d: d - r,
        constraints={"type": "ineq", "fun": lambda d: f @ d - a_t, "jac": lambda d: f},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 200},
    )
    assert solution.success
    share = compute_share(forget, remain, a_t)
    assert np.allclose(r + share * f, solution.x, atol=1e-5)
    assert f @ (r + share * f) >= a_t - 1e-6
    assert (share == 0) == (f @ r >= a_t)


def test_nothing_is_added_where_remaining_forgets_already():
    forget = [torch.tensor([1.0, 0.0])]
    assert compute_share(forget, [torch.tensor([2.0, 5.0])], 1.0) == 0
    assert compute_share(forget, [torch.tensor([-2.0, 5.0])], 1.0) == pytest.approx(3.0)


def test_nothing_can_be_done_where_nothing_is_left_to_forget():
    assert compute_share([torch.zeros(3)], [torch.ones(3)], 1.0) == 0


def test_the_inner_product_goes_by_chunks_and_by_place_not_by_memory(monkeypatch):
    monkeypatch.setattr("efface.functional.value_function.CHUNK", 4)
    a, b = torch.randn(2, 3, 5, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    assert inner([a, a[0]], [b.T.contiguous().T, b[0]]).item() == pytest.approx(float((a * b).sum() + a[0] @ b[0]))


def test_the_inner_product_copies_a_chunk_at_a_time_in_any_memory_format(monkeypatch):
    monkeypatch.setattr("efface.functional.value_function.CHUNK", 256)
    grad = torch.randn(64, 32, 3, 3).to(memory_format=torch.channels_last)
    with AllocationTracker([grad]) as tally:
        inner([grad], [grad])
    assert tally.peak < grad.untyped_storage().nbytes() / 4


def test_the_inner_product_survives_small_and_large():
    a = [torch.tensor([1e-25, 1e-25]), torch.tensor([1e25])]
    assert inner(a[:1], a[:1]).item() == pytest.approx(2e-50)
    assert inner(a[1:], a[1:]).item() == pytest.approx(1e50)


def test_the_inner_product_takes_single_numbers():
    assert inner([torch.tensor(2.0), torch.ones(3)], [torch.tensor(5.0), torch.ones(3)]).item() == 13


def test_a_gpu_makes_few_large_products_of_many_gradients():
    """Of 300 tensors in three groups: three products, and the same sum to fp64."""
    rng = torch.Generator().manual_seed(0)
    a, b = ([torch.randn(100, 20, generator=rng).to(dtype) for _ in range(300)] for dtype in (torch.float32,) * 2)
    with pytest.MonkeyPatch.context() as patch, Operations() as seen:
        patch.setattr(value_function, "LARGE", 200_000)
        found = value_function._sum_by_groups(a, b)
    assert seen.counts["dot"] == 3 and found.dtype == torch.float64
    assert float(found) == pytest.approx(float(inner(a, b)), rel=1e-12)
    with pytest.MonkeyPatch.context() as patch, Operations() as seen:
        patch.setattr(value_function, "LARGE", 14_000)  # seven tensors, and six are left over
        found = value_function._sum_by_groups(a, b)
    assert seen.counts["dot"] == 43 and float(found) == pytest.approx(float(inner(a, b)), rel=1e-12)
