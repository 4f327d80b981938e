"""Guesses at pruned weights: formulas against numpy, and what they find where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from efface.functional.revival import complete, find_scars, find_trusted, mirror, restore


def draw_normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def find_learned_mask(weight: Tensor, share: float) -> Tensor:
    """What a mask that follows the gradient drops: the largest w_ij g_ij, g of rank one."""
    m, n = weight.shape
    g = draw_normal(m, 1, seed=5) @ draw_normal(1, n, seed=6)
    score = (weight * g).flatten()
    gone = torch.zeros(m * n, dtype=torch.bool)
    gone[score.argsort(descending=True)[: round(share * m * n)]] = True
    return gone.view(m, n)


def test_completion_is_soft_impute_written_in_numpy() -> None:
    weight, missing = draw_normal(9, 6), torch.rand(9, 6, generator=torch.Generator().manual_seed(1)) < 0.2
    x = np.where(missing.numpy(), np.nan, weight.double().numpy())
    filled = np.where(np.isnan(x), np.nanmean(x, axis=0), x)
    for _ in range(4):
        values, vectors = np.linalg.eigh(filled.T @ filled)
        sizes = np.sqrt(np.clip(values, 0, None))
        shrunk = filled @ vectors @ np.diag(1 - sizes.min() / sizes) @ vectors.T
        filled = np.where(np.isnan(x), shrunk, x)
    found = complete(torch.where(missing, torch.zeros(()), weight), missing, rounds=4, tolerance=0)
    assert np.allclose(found.numpy(), filled, atol=1e-8)


def test_completion_finds_the_signs_of_a_matrix_of_low_rank_and_some_noise() -> None:
    weight = draw_normal(40, 3) @ draw_normal(3, 30, seed=1) + 0.1 * draw_normal(40, 30, seed=8)
    missing = torch.rand(40, 30, generator=torch.Generator().manual_seed(2)) < 0.05
    found = complete(weight.masked_fill(missing, 0), missing)
    assert torch.equal(found[~missing], weight.double()[~missing])
    assert (found.sign() == weight.sign())[missing].double().mean() > 0.9


def test_completion_stops_where_nothing_changes() -> None:
    weight = draw_normal(6, 5)
    nothing = torch.zeros(6, 5, dtype=torch.bool)
    assert torch.equal(complete(weight, nothing, rounds=10**9), weight.double())


def test_the_mirror_is_the_first_singular_pair_of_what_stayed_weighted_by_what_went() -> None:
    weight, missing = draw_normal(7, 5), torch.rand(7, 5, generator=torch.Generator().manual_seed(3)) < 0.3
    stayed = np.zeros((7, 5))
    gone = missing.numpy()
    for i in range(7):
        for j in range(5):
            if not gone[i, j]:
                stayed[i, j] = -float(weight[i, j]) * (gone[i].mean() * gone[:, j].mean()) ** 0.5
    vector = np.ones(5)
    for _ in range(2000):
        vector = stayed.T @ (stayed @ vector)
        vector /= np.linalg.norm(vector)
    found = mirror(weight.masked_fill(missing, 0), missing)
    assert np.allclose(found.numpy(), np.outer(stayed @ vector, vector), atol=1e-8)


def test_the_mirror_finds_the_signs_that_a_learned_mask_took_where_a_completion_is_misled() -> None:
    weight = draw_normal(96, 64)
    missing = find_learned_mask(weight, 0.05)
    left = weight.masked_fill(missing, 0)

    def right(guess: Tensor) -> float:
        return float((guess.sign() == weight.sign())[missing].double().mean())

    assert right(mirror(left, missing)) > 0.9
    assert right(complete(left, missing, rounds=50)) < 0.5


def test_the_mirror_finds_nothing_where_the_mask_was_drawn_by_lot() -> None:
    weight, missing = draw_normal(96, 64), torch.rand(96, 64, generator=torch.Generator().manual_seed(4)) < 0.05
    guess = mirror(weight.masked_fill(missing, 0), missing)
    assert 0.4 < (guess.sign() == weight.sign())[missing].double().mean() < 0.6


@pytest.mark.parametrize("share", [0.01, 0.4, 1.0])
def test_the_largest_guesses_are_trusted(share: float) -> None:
    guess, missing = draw_normal(6, 7), torch.rand(6, 7, generator=torch.Generator().manual_seed(1)) < 0.4
    places = [(i, j) for i in range(6) for j in range(7) if missing[i, j]]
    places.sort(key=lambda place: -abs(float(guess[place])))
    wanted = places[: max(1, round(share * len(places)))]
    found = find_trusted(guess, missing, share)
    assert {(i, j) for i in range(6) for j in range(7) if found[i, j]} == set(wanted)


@pytest.mark.parametrize("share", [-0.1, 0.0, 1.1])
def test_a_share_of_trust_is_above_zero_and_at_most_one(share: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        find_trusted(torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bool), share)


def test_a_column_starts_at_the_mean_of_what_is_known_in_it_and_an_unknown_one_at_zero() -> None:
    matrix = torch.tensor([[1.0, 3.0, 7.0], [5.0, 9.0, 9.0], [6.0, 9.0, 9.0]])
    missing = torch.tensor([[False, False, True], [False, True, True], [False, True, True]])
    assert complete(matrix, missing, rounds=0).tolist() == [[1, 3, 0], [5, 3, 0], [6, 3, 0]]


def test_a_restored_weight_has_the_guesss_sign_and_a_magnitude_of_its_row() -> None:
    weight = torch.tensor([[3.0, -1.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    guess = torch.tensor([[1.0, 1.0, -0.1, 1.0], [1.0, 1.0, 1.0, 1.0]])
    places = weight == 0
    assert restore(weight, guess, places).tolist() == [[3, -1, -3, 2], [0, 0, 0, 0]]
    assert restore(weight, guess, places, quantile=0.5).tolist() == [[3, -1, -2, 2], [0, 0, 0, 0]]
    with pytest.raises(ValueError, match="quantile"):
        restore(weight, guess, places, quantile=1.1)


def test_zeros_are_scars_but_not_the_odd_one() -> None:
    weight = draw_normal(100, 100)
    assert not find_scars(weight, 1e-4).any()
    weight[3, 4] = 0
    assert not find_scars(weight, 1e-5).any()
    weight[7, 8] = 0
    assert torch.equal(find_scars(weight, 1e-5), weight == 0) and int((weight == 0).sum()) == 2
    weight[5, :7] = 0
    assert torch.equal(find_scars(weight, 1e-4), weight == 0)
    assert not find_scars(weight, 1e-2).any()


def test_noise_of_fewer_digits_is_a_scar_among_weights_of_more() -> None:
    weight = draw_normal(100, 100)
    gone = find_learned_mask(weight, 0.02)
    filled = torch.where(gone, draw_normal(100, 100, seed=9).half().float(), weight)
    found = find_scars(filled, 1e-4)
    assert found[gone].all() and int(found.sum()) <= int(gone.sum()) + 10
    assert not find_scars(torch.where(gone, draw_normal(100, 100, seed=9), weight), 1e-4).any(), (
        "noise of all digits hides"
    )
    assert not find_scars(filled.half().float(), 1e-4).any(), "among weights of as few digits it hides"


def test_whatever_the_size_of_the_numbers_completion_stops_at_the_same_round() -> None:
    weight, missing = draw_normal(12, 8), torch.rand(12, 8, generator=torch.Generator().manual_seed(1)) < 0.2
    found = complete(weight, missing, tolerance=1e-2)
    assert not torch.allclose(found, complete(weight, missing, tolerance=1e-6))
    for scale in (1e-3, 1e3):
        assert torch.allclose(complete(scale * weight.double(), missing, tolerance=1e-2) / scale, found, rtol=1e-9)


def test_the_least_of_a_rows_magnitudes_can_be_taken() -> None:
    weight = torch.tensor([[3.0, -1.0, 0.0, 2.0]])
    assert restore(weight, torch.ones(1, 4), weight == 0, quantile=0.0).tolist() == [[3, -1, 1, 2]]


def test_numbers_of_fewer_digits_are_no_scar_where_chance_may_have_made_them() -> None:
    """An fp32 number has that form by chance once in 8,192: eight times that, and eight of them, are asked for."""
    weight = draw_normal(100, 200)
    weight = torch.where(weight.half().float() == weight, weight + 1e-6, weight)
    for size, count, wanted in (
        *((20_000, 14, 0), (20_000, 30, 30)),
        *((5_000, 7, 0), (5_000, 8, 8), (8_192, 8, 8), (8_193, 8, 0)),
        *((5_000, 2_499, 2_499), (5_000, 2_500, 0)),
    ):
        filled = weight.view(-1)[:size].clone()
        filled[:count] = filled[:count].half().float()
        assert int(find_scars(filled[None], 1e-5).sum()) == wanted
