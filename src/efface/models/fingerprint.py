"""What tells one set of weights from another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

CASTS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def compute_digests(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Of these weights at each cast, by its name: equal in one of them means the same weights at some dtype.

    Raises:
        ValueError: a weight holds NaN or infinite numbers, with which nothing could be drawn; names it.
    """
    for name, weight in weights.items():
        if lost := weight.numel() - int(weight.isfinite().sum()):
            raise ValueError(
                f"the model's weight {name!r} holds NaN or infinite numbers ({lost} of {weight.numel()}): its file is "
                "damaged, or it overflowed when it was cast to another dtype; download or convert the model again"
            )
    with ThreadPoolExecutor(len(CASTS)) as threads:  # hashing lets others run meanwhile
        return dict(zip(CASTS, threads.map(lambda dtype: _digest(weights, dtype), CASTS.values()), strict=True))


def raw(tensor: Tensor, dtype: torch.dtype) -> bytes:
    """The bytes of a tensor at this dtype."""
    return _plain(tensor, dtype).numpy().tobytes()


def _digest(weights: Mapping[str, Tensor], dtype: torch.dtype) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(_plain(tensor, dtype).numpy().data)
    return digest.hexdigest()


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype).contiguous().flatten().view(torch.uint8)
