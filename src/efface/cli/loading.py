"""The flags that say how a model is opened, and how it draws, for every command that works with one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..api.resources import LazyModel
from .console import say

if TYPE_CHECKING:
    from ..models.base import Model


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """In how many steps pictures are drawn, and how closely they follow their prompts."""

    steps: int | None = None
    """Sampling steps; the protocol's or the model's own number by default."""
    guidance: float | None = None
    """Guidance; the protocol's or the model's own by default."""


@dataclass(frozen=True, kw_only=True)
class Drawing(Sampled):
    """How pictures are drawn."""

    strength: float = 1.0
    """How much of the edit is applied."""


@dataclass(frozen=True, kw_only=True)
class Sampling(Drawing):
    """How pictures are drawn, and by which scheduler."""

    sampler: Literal["own", "ddim", "dpm", "unipc"] = "own"
    """The model's own scheduler, or another on its noise levels; dpm and unipc need fewer steps."""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Where and how a model works."""

    device: str | None = None
    """Where to work; a GPU where there is one."""
    dtype: Literal["fp32", "fp16", "bf16"] | None = None
    """Of the model's weights: by default fp32 on a CPU, and on a GPU bf16, or fp16 where it lacks that. What learns has
    fp32 masters whatever this says."""
    compute: Literal["own", "bf16", "auto"] | None = None
    """Compute in the weights' own dtype, in bf16, or in bf16 where the hardware does; by the model's own default."""
    variant: str = ""
    """Weights to open where a folder or hub id has several: fp16 for files *.fp16.safetensors."""
    compile: bool = False
    """Compile the network: minutes at first, then faster on a GPU."""
    offload: bool = False
    """Keep text encoders and autoencoder on the CPU while a GPU works."""

    guidance_rescale: float = 0.0
    """How far the deviation of guided predictions is moved back to that of the conditional one, 0 to 1; Stable
    Diffusion and SDXL have it."""
    deterministic: bool = False
    """Let a GPU use only kernels that give the same bits every time; some are slower."""

    def opened(self, model: str, **more: Any) -> Model:
        """The model, set up as the flags say; `more` are further arguments of `efface.load`."""
        from .. import load

        made = load(
            model,
            self.device,
            self.dtype,
            self.compute,
            compile=self.compile,
            offload=self.offload,
            variant=self.variant,
            guidance_rescale=self.guidance_rescale,
            deterministic=self.deterministic,
            **more,
        )
        if made.device.type != "cpu":
            computed = f", computed in {_name(made.compute)}" if made.compute else ""
            say(f"{made.name}: weights in {_name(made.dtype)}{computed}, on {made.device}; --dtype chooses another")
        return made

    def lazily(self, model: str, **more: Any) -> LazyModel:
        """The model, to be opened as the flags say when everything that can be refused before has been."""
        return LazyModel(model, lambda: self.opened(model, **more))


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
