"""Measures which neurons carry a concept, and how much an attack activates them (Yang et al., arXiv 2405.16534).

Correlation: rho = E[ |z|_1 - |z~|_1 ], where z is a neuron's activation in the base and z~ in the erased model, under
the concept's prompt at the same x_t. It is signed, and positive for a neuron that the erasure switched off.
Sensitivity: delta = E | |z~(x_t, c_adv)|_1 - |z~(x_t, c)|_1 |; its formula could not be read in the source, so this is
our reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Contrast:
    """The mean of some neurons compared with that of as many random ones."""

    mean: float
    """The mean of the chosen neurons."""
    random: float
    """The mean of random ones, averaged over all draws."""
    low: float
    high: float
    """95 % of the random draws are between `low` and `high`."""
    p: float
    """The share of draws, with the choice itself as one of them, whose mean is at least the chosen neurons'."""


def measure_correlation(base: Tensor, erased: Tensor) -> Tensor:
    """The mean signed decrease [neurons] of L1 norms [rows, neurons] from base to erased model: the paper's rho."""
    _require_alike(base, erased)
    return (base - erased).mean(0)


def measure_change(one: Tensor, other: Tensor) -> Tensor:
    """Mean absolute change [neurons] from one to other, each [rows, neurons] of L1 norms."""
    _require_alike(one, other)
    return (one - other).abs().mean(0)


def measure_relative_change(plain: Tensor, other: Tensor, floor: float = 1e-6) -> Tensor:
    """Computes `measure_change` of [n, d] in units of each row's plain activation, which counts as at least `floor`."""
    return measure_change(plain / plain.clamp(min=floor), other / plain.clamp(min=floor))


def find_strongest(values: Tensor, share: float) -> Tensor:
    """Gives the indices [k] of this share of the neurons with the largest values [d]; k is at least one."""
    if not 0 < share < 1:
        raise ValueError(f"the share of neurons is above 0 and below 1, got {share:g}")
    return values.argsort(descending=True, stable=True)[: max(1, round(share * len(values)))]


def measure_contrast(
    values: Tensor, chosen: Tensor, draws: int, rng: torch.Generator, strata: Sequence[int] | None = None
) -> Contrast:
    """Compares the chosen neurons' mean with that of random sets of the same size.

    Args:
        values: [neurons], fp64 on the CPU.
        chosen: indices of some of them.
        draws: the number of random sets.
        rng: a generator on the CPU.
        strata: the group of each neuron; a random set then has as many neurons of each group as the chosen set, so that
            a layer with large activations explains nothing by itself.
    """
    if draws < 1:
        raise ValueError(f"at least 1 random set, got {draws}")
    belongs = torch.zeros(len(values), dtype=torch.long) if strata is None else torch.tensor(list(strata))
    total = torch.zeros(draws, dtype=torch.double)
    for stratum in belongs[chosen].unique().tolist():
        members = (belongs == stratum).nonzero().flatten()
        count = int((belongs[chosen] == stratum).sum())
        # The indices of the smallest random numbers are a set without replacement, for each draw.
        order = torch.rand(draws, len(members), generator=rng, dtype=torch.double).argsort(1)[:, :count]
        total += values.double()[members[order]].sum(1)
    means, mean = total / len(chosen), float(values.double()[chosen].mean())
    low, high = means.quantile(0.025).item(), means.quantile(0.975).item()
    # A draw of the very same neurons must count despite rounding.
    reached = int((means >= mean - 1e-12 * abs(mean)).sum())
    return Contrast(mean, means.mean().item(), low, high, (1 + reached) / (1 + draws))


def _require_alike(one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape:
        raise ValueError(f"activations of the same rows and neurons are compared; got {one.shape} and {other.shape}")
