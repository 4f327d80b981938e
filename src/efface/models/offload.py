"""Places the parts of a pipeline on devices and sets up how its network computes; predictions do not change.

Checkpointing recomputes activations in the backward pass, to save their memory. Channels-last is the fastest layout for
convolutions in half precision on a GPU. A compiled network is compiled for each batch size; `pad_rows` keeps their
number small. Parked parts stay on the CPU, are moved to the device for each call and then back. A part through which a
gradient passes stays on the device until the autoencoder is called next, because the backward pass needs it there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .cond import Cond

if TYPE_CHECKING:
    from .base import Model

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def set_up_gpu(deterministic: bool) -> None:
    """Multiplies fp32 matrices in TF32; `deterministic` allows only kernels that give the same bits every time.

    Both settings hold for the whole process. cuBLAS reads its environment variable when it is first used.
    """
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)


def prepare(
    pipeline: Any,
    network: Any,
    device: str,
    *,
    checkpointing: bool,
    compile: bool,
    offload: bool,
    channels_last: bool,
    deterministic: bool = False,
) -> None:
    """Sets up a pipeline whose network is on the device already.

    Raises:
        ValueError: `offload` is given and the device is the CPU.
    """
    if offload and not device.startswith("cuda"):
        raise ValueError("--offload keeps text encoders and autoencoder on the CPU while a GPU works; there is none")
    if device.startswith("cuda"):
        set_up_gpu(deterministic)
    if channels_last:
        network.to(memory_format=torch.channels_last)
    if checkpointing:
        network.enable_gradient_checkpointing()
    if compile:
        network.compile()
    if offload:
        staying: set[nn.Module] = set()
        for name in ENCODERS:
            if (encoder := getattr(pipeline, name, None)) is not None:
                park(encoder, device, ("forward",), staying, clears=False)
        if getattr(pipeline, "vae", None) is not None:
            park(pipeline.vae, device, ("encode", "decode"), staying, clears=True)


def list_resting(model: Model) -> list[Tensor]:
    """Lists the weights on the device that a denoiser's training does not use: text encoders and autoencoder."""
    parts = [getattr(model.pipeline, name, None) for name in (*ENCODERS, "vae")]
    lying = [t for part in parts if part is not None for t in (*part.parameters(), *part.buffers())]
    return [tensor for tensor in lying if tensor.device == model.device]


def park(module: nn.Module, device: str, calls: tuple[str, ...], staying: set[nn.Module], *, clears: bool) -> None:
    """Moves a module to the CPU; each of these calls moves it to the device and back.

    Args:
        module: the part to park.
        device: the device on which it computes.
        calls: the names of its methods that need it there.
        staying: the modules through which a gradient passed and that are still on the device; shared by all parts.
        clears: whether a call of this module first moves those away, because no backward pass follows any more.
    """
    module.to("cpu")
    for name in calls:
        setattr(module, name, _make_visit(module, getattr(module, name), device, staying, clears))


def _make_visit(
    module: nn.Module, call: Callable[..., Any], device: str, staying: set[nn.Module], clears: bool
) -> Callable[..., Any]:
    def visit(*args: Any, **kwargs: Any) -> Any:
        while clears and staying:
            staying.pop().to("cpu")
        module.to(device)
        try:
            out = call(*args, **kwargs)
        except BaseException:
            module.to("cpu")
            raise
        if torch.is_grad_enabled() and any(leaf.requires_grad for leaf in _list_tensors(out)):
            staying.add(module)
        elif module not in staying:
            module.to("cpu")
        return out

    return visit


def _list_tensors(out: Any) -> list[Tensor]:
    """The tensors that a call returned, in whatever containers."""
    if isinstance(out, Tensor):
        return [out]
    parts = out.values() if isinstance(out, Mapping) else out if isinstance(out, tuple | list) else ()
    return [tensor for part in parts for tensor in _list_tensors(part)]


def pad_rows(x: Tensor, t: Tensor, cond: Cond, seen: set[int]) -> tuple[Tensor, Tensor, Cond]:
    """Repeats rows of x [n, ...] and t [n] up to a batch size in `seen`, at most twice as large, or adds n to `seen`.

    A compiled network is compiled anew for every batch size, which would take longer than the padding of a last batch.
    """
    n = len(x)
    size = min((m for m in seen if n <= m <= 2 * n), default=n)
    seen.add(size)
    if size == n:
        return x, t, cond
    rows = torch.arange(size, device=x.device).clamp(max=n - 1)
    return x[rows], t[rows], cond[rows]
