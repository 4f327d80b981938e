"""Edits of every form, for the tests of files."""

from __future__ import annotations

import torch
from torch import nn

from efface.edits.deltas import pack
from efface.edits.edit import Edit
from efface.models.base import Model


def edit_with(model: Model, values: dict[str, torch.Tensor]) -> Edit:
    request = {"targets": ["cat"], "anchor": "dog", "keep": []}
    meta = {"method": "ESD", "arguments": {"steps": 1}, "request": request}
    return Edit(values, {**meta, "model": model.name, "base": model.fingerprint()})


def list_matrices(model: Model, *parts: str) -> list[str]:
    """The weights of linear layers and convolutions whose names have one of these parts."""
    owned = [(n, owner) for n, owner in model.owners.items() if n.endswith(".weight") and any(p in n for p in parts)]
    return [name for name, owner in owned if isinstance(owner, nn.Linear | nn.Conv2d)]


def build_low_rank(model: Model, *parts: str, rank: int = 2) -> Edit:
    rng = torch.Generator().manual_seed(7)
    values: dict[str, torch.Tensor] = {}
    for name in list_matrices(model, *parts):
        out, wide = model.weights[name].flatten(1).shape
        values[f"{name}:down"] = torch.randn(rank, wide, generator=rng) / wide**0.5
        values[f"{name}:up"] = 0.3 * torch.randn(out, rank, generator=rng)
    return edit_with(model, values)


def build_dense(model: Model, *parts: str) -> Edit:
    """New values of weights and biases."""
    rng = torch.Generator().manual_seed(8)
    names = [name for name in model.weights if any(part in name for part in parts)]
    return edit_with(
        model, {n: w + 0.1 * torch.randn(w.shape, generator=rng) for n in names for w in (model.weights[n].detach(),)}
    )


def mask(model: Model, *parts: str) -> Edit:
    rng = torch.Generator().manual_seed(9)
    names = list_matrices(model, *parts)
    return edit_with(model, {f"{n}:mask": pack(torch.rand(model.weights[n].shape, generator=rng) > 0.2) for n in names})


def is_same_change(model: Model, one: Edit, two: Edit, tolerance: float = 1e-5) -> bool:
    """Whether two edits give the same weights, to a part of the change."""
    before = {name: w.detach().clone() for name, w in model.weights.items()}
    with one.apply(model):
        first = {name: w.detach().clone() for name, w in model.weights.items()}
    with two.apply(model):
        second = {name: w.detach().clone() for name, w in model.weights.items()}
    return all(
        (first[n] - second[n]).norm() <= tolerance * (first[n] - before[n]).norm() + 1e-7 * before[n].norm()
        for n in first
    )
