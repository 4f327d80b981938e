"""The flags of all commands with a model: how the model is opened, and how it draws."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from ..api.resources import LazyModel
from .console import say

if TYPE_CHECKING:
    from ..models.base import Model


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Says how many sampling steps are taken, and with which guidance."""

    steps: int | None = None
    """Sampling steps; the model's own number by default."""
    guidance: float | None = None
    """Guidance; the model's own by default."""


@dataclass(frozen=True, kw_only=True)
class Drawing(Sampled):
    """How pictures are drawn."""

    strength: float = 1.0
    """Strength of the edit; 1 applies it as it was fitted."""


@dataclass(frozen=True, kw_only=True)
class Sampling(Drawing):
    """How pictures are drawn, and by which scheduler.

    A protocol brings its own steps and guidance, except for bundled models.
    """

    sampler: Literal["own", "ddim", "dpm", "unipc"] = "own"
    """The model's own scheduler, or another one on the same noise levels; dpm and unipc need fewer steps."""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """The device and the precision of a model, and how it is loaded."""

    device: str | None = None
    """The device to compute on; by default a GPU where there is one."""
    dtype: Literal["fp32", "fp16", "bf16"] | None = None
    """Precision of the model's weights: by default fp32 on a CPU and bf16 on a GPU, or fp16 on a GPU without bf16.
    Trained weights always have fp32 copies."""
    compute: Literal["own", "bf16", "auto"] | None = None
    """Precision of the computation: the weights' own, bf16, or (auto) bf16 where the hardware supports it. The
    default depends on the model."""
    variant: str = ""
    """Variant of the weights to open where a folder or hub id has several: fp16 for files *.fp16.safetensors."""
    quantise: Literal[4, 8] | None = None
    """Hold the denoiser's linear layers in 4 or 8 bits, on a GPU with the extra `cuda`: for guides and methods of low
    rank."""
    compile: bool = False
    """Compile the network, which takes minutes at first and is then faster on a GPU."""
    offload: bool = False
    """Keep text encoders and autoencoder on the CPU while a GPU works."""

    guidance_rescale: float = 0.0
    """How far the deviation of guided predictions is moved back to that of the conditional one, 0 to 1; Stable
    Diffusion and SDXL have it."""
    deterministic: bool = False
    """Use only deterministic GPU kernels, so that results are the same bit for bit every time; some are slower."""

    def open_model(self, model: str, **more: Any) -> Model:
        """Opens the model as the flags say; `more` are further arguments of `efface.load`."""
        from .. import load

        flags = {field.name: getattr(self, field.name) for field in fields(Loading)}
        made = load(model, **flags | {"quantise": self.quantise or 0}, **more)
        if made.device.type != "cpu":
            computed = f", computed in {_name(made.compute)}" if made.compute else ""
            say(f"{made.name}: weights in {_name(made.dtype)}{computed}, on {made.device}; --dtype chooses another")
        return made

    def open_model_later(self, model: str, **more: Any) -> LazyModel:
        """Returns a model that is opened, as the flags say, when it is first used: the request is checked before.

        Raises ValueError for a name that can't be a model's.
        """
        from ..models.loading import check_model_name

        check_model_name(model)
        return LazyModel(model, lambda: self.open_model(model, **more))


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
