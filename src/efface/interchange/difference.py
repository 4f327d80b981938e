"""Computes which tensors an edit changes, by how much, and which paths from prompt to picture it leaves unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..edits.deltas import apply_parts
from ..edits.edit import Edit
from ..models.base import Model

ROLES = {
    "cross": "keys and values that read the prompt in each block",
    "embedder": "the layer that reads the prompt before all blocks",
    "pooled": "the layers that read the prompt's pooled vector, which modulates every block",
}


@final
@dataclass(frozen=True)
class Changed:
    """The change of one weight."""

    name: str
    size: float
    """‖Δ‖, Frobenius."""
    relative: float
    """‖Δ‖ / ‖W‖ of the base."""
    share: float
    """The share of its numbers that changed."""
    rank: int | None
    """The rank that holds 99 % of the change's energy; None for a vector."""


@final
@dataclass(frozen=True)
class TextPath:
    """A path by which the prompt reaches the picture."""

    role: str
    about: str
    changed: int
    of: int
    """The number of weights on this path that the edit changes (`changed`), and of all its weights."""

    @property
    def open(self) -> bool:
        """Whether the edit leaves the path unchanged."""
        return self.changed == 0


@final
@dataclass(frozen=True)
class Difference:
    """The difference of two sets of weights of one model."""

    tensors: tuple[Changed, ...]
    """The weights that differ, by relative size, largest first."""
    of: int
    """The number of weights that the model has."""
    relative: float
    """‖Δ‖ / ‖W‖ over all weights together."""
    paths: tuple[TextPath, ...]


def compute_values(model: Model, edit: Edit | None, strength: float = 1.0) -> dict[str, Tensor]:
    """The values of the weights that an edit changes, at this strength; empty without an edit."""
    if edit is None:
        return {}
    edit.check(model)
    base = model.weights
    own = {name: base[name].detach().float() for name in edit.names}
    return {
        n: own[n] + strength * (apply_parts(n, own[n], parts).float() - own[n])
        for n, parts in edit.group_changes().items()
    }


@torch.no_grad()
def compare(model: Model, new: Mapping[str, Tensor], old: Mapping[str, Tensor] | None = None) -> Difference:
    """Compares new values of some weights with old ones, by default the base's own.

    Args:
        model: the base.
        new, old: values by checkpoint name; a weight that is not named has the base's value.
    """
    base, before = model.weights, old or {}
    found, total = [], 0.0
    for name in sorted(set(new) | set(before)):
        first = before.get(name, base[name]).detach().float()
        delta = new.get(name, base[name]).detach().to(first.device).float() - first
        if delta.any():
            size = float(delta.double().norm())
            total += size**2
            weight = float(base[name].detach().double().norm())
            share = float((delta != 0).float().mean())
            found.append(Changed(name, size, size / weight if weight else float("inf"), share, _rank(delta)))
    whole = sum(float(weight.detach().double().square().sum()) for weight in base.values())
    found.sort(key=lambda each: (-each.relative, each.name))
    return Difference(tuple(found), len(base), (total / whole) ** 0.5, list_paths(model, {f.name for f in found}))


def list_paths(model: Model, names: set[str]) -> tuple[TextPath, ...]:
    """The paths from prompt to picture, with the number of their weights that are among these names."""
    paths = []
    for role, about in ROLES.items():
        own = {found.weight for found in model.list_text_maps() if found.role == role}
        if own:
            paths.append(TextPath(role, about, len(own & names), len(own)))
    parts = sorted({name.partition(".")[0] for name in model.weights} - {model.denoiser})
    for part in parts:
        own = {name for name in model.weights if name.startswith(f"{part}.")}
        paths.append(TextPath(part, "a text encoder's own weights", len(own & names), len(own)))
    return tuple(paths)


def _rank(delta: Tensor) -> int | None:
    if delta.dim() < 2:
        return None
    flat = delta.flatten(1).double()
    gram = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
    squares = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0)
    return int((squares.cumsum(0) / squares.sum() < 0.99).sum()) + 1
