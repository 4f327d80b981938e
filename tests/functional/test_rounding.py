"""Rounding and pruning of weights against loops over single numbers."""

from __future__ import annotations

import pytest
import torch

from efface.functional.rounding import prune_weights, round_weights


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", [(5, 7), (3, 2, 3, 3)])
def test_every_number_becomes_the_nearest_multiple_of_its_channels_step(bits: int, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight[0] *= 10
    found = round_weights(weight, bits)
    count = 2 ** (bits - 1) - 1
    for channel, got in zip(weight.flatten(1).double(), found.flatten(1).double(), strict=True):
        grid = torch.arange(-count, count + 1).double() * float(channel.abs().max()) / count
        for number, its in zip(channel, got, strict=True):
            assert float((its - grid[(grid - number).abs().argmin()]).abs()) < 1e-6 * float(channel.abs().max())
        assert len(got.unique()) <= 2 * count + 1
        assert torch.isclose(got.abs().max(), channel.abs().max())


def test_an_empty_channel_stays_empty_and_the_dtype_stays() -> None:
    weight = torch.zeros(2, 3, dtype=torch.float16)
    weight[1] = torch.tensor([0.1, -0.2, 1.0])
    found = round_weights(weight, 8)
    assert found.dtype == torch.float16 and not found[0].any() and found[1, 2] == 1


def test_one_bit_cannot_round_around_zero() -> None:
    with pytest.raises(ValueError, match="at least 2 bits"):
        round_weights(torch.ones(2, 2), 1)


@pytest.mark.parametrize("sparsity", [0.0, 0.13, 0.5, 0.99])
def test_the_smallest_magnitudes_go(sparsity: float) -> None:
    weight = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(1))
    order = sorted(range(36), key=lambda i: abs(float(weight.flatten()[i])))
    gone = set(order[: round(sparsity * 36)])
    found = prune_weights(weight, sparsity).flatten()
    for i, number in enumerate(weight.flatten()):
        assert found[i] == (0 if i in gone else number)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0])
def test_a_sparsity_is_a_share(sparsity: float) -> None:
    with pytest.raises(ValueError, match="from 0 to below 1"):
        prune_weights(torch.ones(2, 2), sparsity)


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_a_small_change_passes_rounding_whole(share: float) -> None:
    """Rounding keeps, over a tensor, what an edit far under half a step changed: it cannot undo the edit."""
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(256, 256, generator=rng)
    step = weight.abs().amax(dim=1, keepdim=True) / 7
    change = share * step * torch.randn(256, 256, generator=rng)
    assert (change.abs() < step / 2).all()
    moved = round_weights(weight + change, 4) - round_weights(weight, 4)
    assert float((moved * change).sum() / change.square().sum()) == pytest.approx(1, abs=0.15)
