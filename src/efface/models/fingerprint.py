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
    digests = {name: hashlib.blake2b(digest_size=16) for name in CASTS}

    def take(name: str, label: bytes, tensor: Tensor) -> None:
        digests[name].update(label)
        digests[name].update(_plain(tensor, CASTS[name]).numpy().data)

    with ThreadPoolExecutor(len(CASTS)) as threads:  # hashing lets others run meanwhile
        for key in sorted(weights):
            tensor = weights[key]  # one at a time: they may be read from a file
            here = tensor.detach().cpu()  # once for all casts: weights on a GPU are copied to here
            _demand_finite(key, here)
            label = f"{key}{tuple(tensor.shape)}".encode()
            list(threads.map(lambda name, here=here, label=label: take(name, label, here), CASTS))
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _demand_finite(name: str, weight: Tensor) -> None:
    if lost := weight.numel() - int(weight.isfinite().sum()):
        raise ValueError(
            f"the model's weight {name!r} holds NaN or infinite numbers ({lost} of {weight.numel()}): its file is "
            "damaged, or it overflowed when it was cast to another dtype; download or convert the model again"
        )


def raw(tensor: Tensor, dtype: torch.dtype) -> bytes:
    """The bytes of a tensor at this dtype."""
    return _plain(tensor, dtype).numpy().tobytes()


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype).contiguous().flatten().view(torch.uint8)
