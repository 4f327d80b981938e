"""Digests that tell one set of weights from another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

CASTS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PIECE = 1 << 22
"""Numbers of a weight that are copied from a GPU and hashed at once: 16 MiB in fp32."""


def compute_digests(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """The weights' digest at each dtype of `CASTS`: if one is equal, the weights are the same at some dtype.

    Each weight is read once for all casts, `PIECE` numbers at a time: of a model on a GPU no more than a piece and its
    casts ever lies on the host.

    Raises:
        ValueError: a weight, which the message names, holds NaN or infinite numbers.
    """
    digests = {name: hashlib.blake2b(digest_size=16) for name in CASTS}

    def take(name: str, piece: Tensor) -> None:
        digests[name].update(_to_contiguous(piece, CASTS[name]).numpy().data)

    with ThreadPoolExecutor(len(CASTS)) as threads:  # hashing releases the interpreter's lock
        for key in sorted(weights):
            tensor = weights[key].detach()  # one at a time: they may be read from a file
            for digest in digests.values():
                digest.update(f"{key}{tuple(tensor.shape)}".encode())
            lost = 0
            for piece in read_in_pieces(tensor):
                lost += piece.numel() - int(piece.isfinite().sum())
                list(threads.map(lambda name, piece=piece: take(name, piece), CASTS))
            _demand_finite(key, lost, tensor.numel())
    return {name: digest.hexdigest() for name, digest in digests.items()}


def read_in_pieces(tensor: Tensor) -> Iterator[Tensor]:
    """The numbers of a tensor in their order, as tensors [n] on the CPU, n at most `PIECE`.

    >>> [len(piece) for piece in read_in_pieces(torch.zeros(3, 2**21))]
    [4194304, 2097152]
    """
    if tensor.numel() <= PIECE:
        flat = tensor.to("cpu").contiguous().flatten()
        yield flat if flat.stride(0) == 1 else flat.clone(memory_format=torch.contiguous_format)  # a single number
    elif tensor.is_contiguous():
        yield from (piece.to("cpu") for piece in tensor.view(-1).split(PIECE))
    else:  # of convolutions laid out by channels, say: a flat view of the whole would be a copy of the whole
        rows = max(1, len(tensor) * PIECE // tensor.numel())
        for part in tensor.split(rows) if len(tensor) > 1 else (tensor[0],):
            yield from read_in_pieces(part)


def _demand_finite(name: str, lost: int, count: int) -> None:
    if lost:
        raise ValueError(
            f"the model's weight {name!r} holds NaN or infinite numbers ({lost} of {count}): its file is "
            "damaged, or it overflowed when it was cast to another dtype; download or convert the model again"
        )


def to_bytes(tensor: Tensor, dtype: torch.dtype) -> bytes:
    """The bytes of a tensor at this dtype."""
    return _to_contiguous(tensor, dtype).numpy().tobytes()


def _to_contiguous(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype).contiguous().flatten().view(torch.uint8)
