"""On which device a model works, and in which dtype; what the machine can't serve is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from .fingerprint import CASTS
from .quantised import Bits, check_quantise, check_source

SERVED = ("cpu", "cuda")


def choose_device_and_dtype(
    source: Any,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    compute: Literal["own", "bf16", "auto"] | None,
    compile: bool,
    quantise: Bits,
) -> tuple[str, torch.dtype | None]:
    """The device, and the dtype of the weights (None leaves it); ValueError where this machine can't serve them."""
    if isinstance(dtype, str) and dtype not in CASTS:
        raise ValueError(f"no dtype {dtype!r}; there are {', '.join(CASTS)}")
    if quantise:
        check_source(quantise, source)
    where = check_device(str(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    if quantise:
        check_quantise(quantise, where, compile)
    dtype = choose_dtype(where) if dtype is None and isinstance(source, str | Path) else dtype
    cast = CASTS[dtype] if isinstance(dtype, str) else dtype
    if cast == torch.bfloat16 or compute == "bf16":
        check_bf16(where)
    return where, cast


def check_device(device: str) -> str:
    """Returns the device; raises ValueError where it does not exist or is not supported."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"there is no device {device!r}; cpu, cuda or cuda:0 would have worked") from error
    if kind not in SERVED:
        raise ValueError(
            f"device {device!r} is not supported: closed forms and inner products are computed in fp64, which some "
            f"devices lack; give --device {' or '.join(SERVED)}"
        )
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"no device {device!r}: torch finds no CUDA GPU here; give --device cpu, or leave it out")
    if device.startswith("cuda:") and int(device.partition(":")[2]) >= torch.cuda.device_count():
        raise ValueError(f"no device {device!r}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return device


def computes_bf16(device: str) -> bool:
    """Whether a GPU multiplies bf16 natively: NVIDIA's from compute capability 8.0 on, and AMD's."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def check_bf16(device: str) -> None:
    """Raises ValueError where this device can't compute in bf16; another GPU of the same machine may well."""
    if device.startswith("cuda") and not computes_bf16(device):
        name = torch.cuda.get_device_name(device)
        raise ValueError(f"{name} does not compute in bf16; give --compute own, and --dtype fp32 or fp16")


def choose_dtype(device: str) -> str | None:
    """The default dtype of weights: bf16 on a GPU, or fp16 where it lacks bf16; None on a CPU, which leaves fp32.

    Trained weights have fp32 masters whatever this dtype is.
    """
    if not device.startswith("cuda"):
        return None
    return "bf16" if computes_bf16(device) else "fp16"
