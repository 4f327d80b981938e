"""Where the parts of a pipeline lie and how its network computes: nothing here changes what it predicts.

Checkpointing recomputes activations in the backward pass, to save their memory. Channels-last is the layout that
convolutions in half precision want on a GPU. A compiled network is compiled for each number of rows; `padded` keeps
those few. Parked parts lie on the CPU and come to the device for each call, then go back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .cond import Cond

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def check_device(device: str) -> str:
    """The device, where it is there; ValueError where it is not."""
    try:
        torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"no device {device!r}; cpu, cuda or cuda:0 would have worked") from error
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"no device {device!r}: torch finds no CUDA GPU here; give --device cpu, or leave it out")
    if device.startswith("cuda:") and int(device.partition(":")[2]) >= torch.cuda.device_count():
        raise ValueError(f"no device {device!r}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return device


def check_bf16(device: str) -> None:
    """ValueError where a device can't compute in bf16."""
    if device.startswith("cuda") and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(device)
        raise ValueError(f"{name} does not compute in bf16; give --compute own, and --dtype fp32 or fp16")


def prepare(
    pipeline: Any, network: Any, device: str, *, checkpointing: bool, compile: bool, offload: bool, channels_last: bool
) -> None:
    """Sets up a pipeline whose network lies on the device already.

    Raises:
        ValueError: parts to be parked where there is no other place.
    """
    if offload and not device.startswith("cuda"):
        raise ValueError("--offload keeps text encoders and autoencoder on the CPU while a GPU works; there is none")
    if channels_last:
        network.to(memory_format=torch.channels_last)
    if checkpointing:
        network.enable_gradient_checkpointing()
    if compile:
        network.compile()
    if offload:
        for name in ENCODERS:
            if (encoder := getattr(pipeline, name, None)) is not None:
                park(encoder, device, ("forward",))
        if getattr(pipeline, "vae", None) is not None:
            park(pipeline.vae, device, ("encode", "decode"))


def park(module: nn.Module, device: str, calls: tuple[str, ...]) -> None:
    """Moves a module to the CPU; each of these calls brings it to the device and back."""
    module.to("cpu")
    for name in calls:
        setattr(module, name, _visiting(module, getattr(module, name), device))


def _visiting(module: nn.Module, call: Callable[..., Any], device: str) -> Callable[..., Any]:
    def visit(*args: Any, **kwargs: Any) -> Any:
        module.to(device)
        try:
            return call(*args, **kwargs)
        finally:
            module.to("cpu")

    return visit


def pad_rows(x: Tensor, t: Tensor, cond: Cond, seen: set[int]) -> tuple[Tensor, Tensor, Cond]:
    """Rows repeated up to a number that was seen before, where one is at most twice as large; else it is seen now.

    A compiled network is compiled anew for every number of rows: the few of a last batch would cost more than they
    take.
    """
    n = len(x)
    size = min((m for m in seen if n <= m <= 2 * n), default=n)
    seen.add(size)
    if size == n:
        return x, t, cond
    rows = torch.arange(size, device=x.device).clamp(max=n - 1)
    return x[rows], t[rows], cond[rows]
