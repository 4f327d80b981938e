"""Tells changes of weights from roundings of them, and measures what rounding takes away from an edit.

A fine-tuned model is often stored in half precision, its base in fp32, or the other way round: each weight then differs
by its rounding, whether it was trained or not. An edit that was made on a base in half precision holds new values of
the rounded weights; beside the base in fp32 they differ by the edit's change and by the rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..edits.deltas import apply_parts
from ..edits.edit import Edit
from ..files import find_shared_digest
from ..models.base import Model
from ..models.fingerprint import CASTS
from .factors import Residual

HALVES = (torch.float16, torch.bfloat16)


def is_unchanged(own: Tensor, other: Tensor) -> bool:
    """Whether a weight from elsewhere is the base's own, or differs by a rounding to half precision alone.

    Args:
        own: the base's weight.
        other: the weight from elsewhere, of the same shape; its numbers may have been rounded and widened again.
    """
    own, other = own.detach().to(other.device), other.detach()
    if torch.equal(own.to(other.dtype), other) or torch.equal(other.to(own.dtype), own):
        return True
    rounded = ((half, other.to(half)) for half in HALVES)
    return any(torch.equal(low.to(other.dtype), other) and torch.equal(own.to(half), low) for half, low in rounded)


def find_precision(model: Model, edit: Edit) -> torch.dtype:
    """The widest dtype at which the model is the base that the edit was made on: half precision where only that fits.

    Raises:
        WrongBase: the edit was made on another base.
    """
    edit.check(model)
    made, own = dict(edit.meta.get("base", {})), model.fingerprint()
    return next(dtype for cast, dtype in CASTS.items() if find_shared_digest({cast: made.get(cast, "")}, own))


@torch.no_grad()
def measure_rounding(model: Model, edit: Edit, strength: float) -> Residual:
    """The part of an edit's change that is lost where its weights are rounded to the model's own dtype.

    Raises:
        ValueError: every weight that the edit changes is rounded to the base's own.
    """
    base, sizes, losses, kept = model.weights, dict[str, float](), dict[str, float](), False
    with edit.apply(model, strength):
        edited = model.weights
    for name, parts in edit.group_changes().items():
        own = base[name].detach().float()
        wanted = strength * (apply_parts(name, own, parts).float() - own)
        found = edited[name].detach().float() - own
        sizes[name] = float(wanted.double().square().sum())
        losses[name] = float((found - wanted).double().square().sum())
        kept = kept or bool(found.any())
    if not kept and any(sizes.values()):
        said = str(model.dtype).removeprefix("torch.")
        raise ValueError(
            f"in {said} nothing is left of the edit: each of its changes is smaller than the distance of two numbers "
            "there; a larger --strength or --dtype fp32 would have worked"
        )
    return Residual.of(sizes, losses)
