"""The forms in which an Edit stores the change of a weight, and the new weight that each form gives.

For a weight NAME it stores one of these:

- `NAME`: its new value;
- `NAME:mask`: which of its numbers are kept, as packed bits (big-endian over the flattened weight, 1 = kept); the
  others become 0, or the values in `NAME:fill`, in order. Zeros show which weights carried the concept, fill values do
  not;
- `NAME:down` [r, in] and `NAME:up` [out, r]: base + up @ down, where a kernel counts as [out, in * h * w]. A scale of
  the product is part of `up`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

LOW_RANK = {"down", "up"}
FORMS = ({""}, {"mask"}, {"mask", "fill"}, LOW_RANK)
"""The sets of suffixes that together are a change; "" is the new value itself."""


def pack(mask: Tensor) -> Tensor:
    """Packs a bool mask of any shape, eight bits to a byte: uint8 [ceil(n / 8)]."""
    return torch.from_numpy(np.packbits(mask.detach().bool().cpu().flatten().numpy()))


def unpack(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """Unpacks a mask of this shape from `pack`'s bits; raises ValueError where the bits have another size."""
    n = math.prod(shape)
    if bits.dtype != torch.uint8 or bits.shape != (-(-n // 8),):
        raise ValueError(
            f"a mask of {tuple(shape)} is {-(-n // 8)} bytes, got {tuple(bits.shape)} of {_name_dtype(bits.dtype)}"
        )
    flat = np.unpackbits(bits.cpu().numpy(), count=n)
    return torch.from_numpy(flat).bool().reshape(tuple(shape))


def group_parts(values: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Groups the parts of each weight's change by suffix, "" for a new value.

    Raises:
        ValueError: a suffix is unknown, or parts are no change together; the message names the key.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in values.items():
        name, _, suffix = key.partition(":")
        if not any(suffix in form for form in FORMS) or key.endswith(":"):
            raise ValueError(
                f"{key!r} is no change of a weight; after the name come :mask, :fill, :down, :up, or nothing"
            )
        groups.setdefault(name, {})[suffix] = value
    for name, parts in groups.items():
        if set(parts) not in FORMS:
            given = ", ".join(repr(_name_key(name, suffix)) for suffix in parts)
            raise ValueError(
                f"{given} make no change of a weight; a new value stands alone, a fill beside a mask, "
                "and down and up go together"
            )
    return groups


@torch.no_grad()
def apply_parts(name: str, base: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
    """The new value of the weight at strength 1, on the base's device.

    A new value keeps its dtype, a masked one has the base's dtype, and a low-rank one is summed in fp32.

    Raises:
        ValueError: a part does not fit the base; the message names its key and the shape that fits.
    """
    held = {suffix: part.to(base.device) for suffix, part in parts.items()}
    if "" in held:
        return _demand(held[""].shape == base.shape, held[""], name, "", tuple(base.shape))
    if "mask" in held:
        return _apply_mask(name, base, held["mask"], held.get("fill"))
    return _apply_low_rank(name, base, held["down"], held["up"])


@torch.no_grad()
def merge_changes(name: str, base: Tensor, changes: Sequence[tuple[Mapping[str, Tensor], float]]) -> Tensor:
    """Adds strength times each change to the base, in its shape and dtype; one change at strength 1 is exact."""
    if len(changes) == 1 and changes[0][1] == 1:
        return apply_parts(name, base, changes[0][0]).to(base.dtype)
    total = base.float()
    for parts, strength in changes:
        total = total + strength * (apply_parts(name, base, parts).float() - base.float())
    return total.to(base.dtype)


def _apply_mask(name: str, base: Tensor, bits: Tensor, fill: Tensor | None) -> Tensor:
    try:
        kept = unpack(bits, base.shape).to(base.device)
    except ValueError as error:
        raise ValueError(f"{_name_key(name, 'mask')!r}: {error}") from error
    if fill is None:
        return torch.where(kept, base, torch.zeros_like(base))
    pruned = int((~kept).sum())
    new = base.detach().clone()
    new[~kept] = _demand(fill.shape == (pruned,), fill, name, "fill", (pruned,)).to(base.dtype)
    return new


def _apply_low_rank(name: str, base: Tensor, down: Tensor, up: Tensor) -> Tensor:
    if base.dim() < 2:
        raise ValueError(
            f"{_name_key(name, 'up')!r}: a weight of {tuple(base.shape)} has no low-rank change; give its value"
        )
    rank = down.shape[0] if down.dim() == 2 else 1
    wide, high = (rank, math.prod(base.shape[1:])), (base.shape[0], rank)
    _demand(down.shape == wide, down, name, "down", wide)
    _demand(up.shape == high, up, name, "up", high)
    return base.float() + (up.float() @ down.float()).reshape(base.shape)


def _demand(fits: bool, part: Tensor, name: str, suffix: str, wanted: tuple[int, ...]) -> Tensor:
    if not fits:
        raise ValueError(f"{_name_key(name, suffix)!r} is {tuple(part.shape)} where {wanted} fits")
    return part


def _name_key(name: str, suffix: str) -> str:
    return f"{name}:{suffix}" if suffix else name


def _name_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
