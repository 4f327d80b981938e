"""A denoiser whose linear layers hold their weights in 4 or 8 bits, so that a model of 12 billion fits on one GPU.

diffusers quantises them by bitsandbytes while it reads the files: 4 bits are NF4 with double quantisation of the scales
(QLoRA, Dettmers et al., arXiv 2305.14314), 8 bits are integers scaled by rows (LLM.int8(), arXiv 2208.07339). The base
then stays as it is, and low-rank factors are learnt beside it. A layer whose weight is swapped for another tensor
multiplies by that tensor: the base's dequantised value plus the factors' product, in the dtype of the other parts.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, final

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import linear

from ..plurals import write_count
from .opening.stored import check_parts

Bits = Literal[0, 4, 8]
"""Bits of each weight of the denoiser's linear layers; 0 leaves them as they are."""
PACKED = ("Params4bit", "Int8Params")
"""The names of bitsandbytes' classes of packed weights, so that bitsandbytes itself need not be installed."""
INSTEAD = "--dtype bf16 with --offload and --checkpointing takes less memory without it"


def check_quantise(bits: int, device: str, compiled: bool) -> None:
    """Raises ValueError, before anything is read, where a base can't be quantised here; says what would work.

    Args:
        bits: 4 or 8.
        device: the device of the model.
        compiled: whether the network is to be compiled.
    """
    if bits not in (4, 8):
        raise ValueError(f"a base can be quantised to 4 or 8 bits, not to {bits}; leave --quantise out for none")
    if not device.startswith("cuda"):
        raise ValueError(
            f"--quantise {bits} needs an NVIDIA GPU, where alone diffusers and bitsandbytes quantise, and the device "
            f"of the model is {device}; {INSTEAD}"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"--quantise {bits} needs bitsandbytes: pip install 'efface[cuda]'; {INSTEAD}")
    if compiled:
        raise ValueError("--compile and --quantise can't be combined: a compiled network would ignore swapped weights")


def check_source(bits: int, source: Any, kind: str = "", is_file: bool = False) -> None:
    """Raises ValueError where this model is not one whose parts diffusers quantises while it reads them."""
    what = (
        "a pipeline in memory"
        if not isinstance(source, str | Path)
        else "a single file"
        if is_file
        else "a bare U-Net"
        if kind == "DDPMPipeline"
        else ""
    )
    if what:
        raise ValueError(
            f"--quantise {bits} quantises a denoiser while its folder is read, and this is {what}; give a diffusers "
            "folder or a hub id"
        )


def build_reading_arguments(bits: int, device: str, compute: torch.dtype) -> dict[str, Any]:
    """Arguments of diffusers' `from_pretrained` with which a denoiser is quantised as it is read.

    Args:
        bits: 4 or 8.
        device: the GPU that it is read onto.
        compute: the dtype in which layers multiply, and that of the weights that are not quantised.
    """
    from diffusers.quantizers.quantization_config import BitsAndBytesConfig

    nested = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": compute}
    how: dict[str, Any] = {"load_in_4bit": True, **nested} if bits == 4 else {"load_in_8bit": True}
    where = torch.device(device).index
    place = torch.cuda.current_device() if where is None else where
    return {"quantization_config": BitsAndBytesConfig(**how), "device_map": {"": place}, "dtype": compute}


def is_packed(weight: Tensor | None) -> bool:
    """Whether a weight is held in 4 or 8 bits."""
    return type(weight).__name__ in PACKED


def unpack(layer: nn.Module, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The value [out, in] that a layer's packed weight stands for, in this dtype."""
    if type(weight).__name__ == "Params4bit":
        from bitsandbytes.functional import dequantize_4bit  # pyright: ignore[reportMissingImports]  (an extra)

        return dequantize_4bit(weight.data, weight.quant_state).to(dtype)  # type: ignore[attr-defined]
    state: Any = layer.state
    scale = weight.SCB if state.SCB is None else state.SCB  # type: ignore[attr-defined]
    return (weight.data.float() * (scale.float().view(-1, 1) / 127)).to(dtype)


def serve_swaps(network: nn.Module) -> int:
    """Makes layers of packed weights multiply by the tensor that is swapped in for them; returns their number."""
    layers = [each for each in network.modules() if is_packed(each._parameters.get("weight"))]
    for layer in layers:
        layer.forward = _make_forward(layer, layer.forward)  # type: ignore[method-assign]
    return len(layers)


def list_scales(network: nn.Module) -> list[Tensor]:
    """The scales beside packed weights, which take memory and are no parameters."""
    found: list[Tensor] = []
    for layer in network.modules():
        weight: Any = layer._parameters.get("weight")
        if is_packed(weight):
            state = getattr(weight, "quant_state", None) or getattr(layer, "state", None)
            parts = [state, getattr(state, "state2", None)]
            found += [t for part in parts for t in vars(part or object).values() if isinstance(t, Tensor)]
            found += (
                [scale] if isinstance(scale := getattr(weight, "SCB", None), Tensor) else []
            )  # before the layer's first pass
    return found


@final
class StoredWeights(Mapping[str, Tensor]):
    """The weights of a denoiser in its files, by checkpoint name; each is read when it is asked for.

    A quantised base has the fingerprint of these weights, so that an edit made on it fits the base itself.
    """

    def __init__(self, files: Mapping[str, Path], part: str, dtype: torch.dtype) -> None:
        self.files = {f"{part}.{key}": (file, key) for key, file in files.items()}
        self.dtype = dtype

    def __getitem__(self, name: str) -> Tensor:
        file, key = self.files[name]
        with safe_open(file, framework="pt") as opened:
            return opened.get_tensor(key).to(self.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def find_stored(folder: Path, part: str, variant: str, names: Collection[str], dtype: torch.dtype) -> StoredWeights:
    """The stored weights of a part of a folder that have these names.

    Raises:
        ValueError: the files are no safetensors, or one of the weights is in none of them.
    """
    (weights,) = [each.weights for each in check_parts(folder, variant) if each.name == part]
    if weights is None or not weights.safe:
        raise ValueError(f"--quantise reads safetensors, and {folder / part} holds none; convert the model first")
    files = [file for pattern in weights.patterns for file in (folder / part).glob(pattern) if file.suffix != ".json"]
    found: dict[str, Path] = {}
    for file in sorted(files):
        with safe_open(file, framework="pt") as opened:
            found |= {key: file for key in opened.keys() if f"{part}.{key}" in names}  # noqa: SIM118
    if lost := sorted(name for name in names if name.startswith(f"{part}.") and name.partition(".")[2] not in found):
        raise ValueError(
            f"--quantise finds {write_count(len(lost), 'weight')} in no file of {folder / part}, first {lost[0]}"
        )
    return StoredWeights(found, part, dtype)


def refuse_export(name: str, bits: int) -> None:
    """Raises ValueError where a model is quantised, because no other tool would read its weights."""
    if bits:
        raise ValueError(f"{name} is held in {bits} bits; to export or to change files, open it without --quantise")


def refuse_dense(name: str, bits: int) -> ValueError:
    """The error for a method that would write new values of quantised weights."""
    return ValueError(
        f"{name} makes new values of weights, and a base in {bits} bits holds its own rounded: the edit would hold the "
        "rounding. Methods of low rank (gem, spm, compose --update low-rank) and guides (negative, sld, safree) "
        f"serve it; {INSTEAD}"
    )


def _make_forward(layer: nn.Module, own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        weight, bias = layer._parameters["weight"], layer._parameters.get("bias")
        if weight is None or is_packed(weight):
            return own(x, *args, **kwargs)
        return linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    return forward
