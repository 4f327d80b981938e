"""Adam with 8-bit moments by bitsandbytes, which launches one kernel for each tensor on a GPU.

It rounds blocks of 256 numbers to the nearest level of a dynamic tree; tensors of fewer than 4096 numbers keep moments
of 32 bits (Dettmers et al., arXiv 2110.02861). Its results equal those of `Adam8bit` up to rounding.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

MOMENTS = ("state1", "state2", "absmax1", "absmax2")
"""The state that bitsandbytes keeps of each tensor, beside the number of steps; its levels are constants."""


def is_installed() -> bool:
    """Whether bitsandbytes can be imported; this is only called where there is a GPU."""
    return importlib.util.find_spec("bitsandbytes") is not None


@final
class Adam8bitBnb:
    """bitsandbytes' Adam at torch's default betas and without weight decay, with the interface of `Adam8bit`."""

    def __init__(self, params: Sequence[Tensor], lr: float) -> None:
        if lr <= 0:
            raise ValueError(f"the learning rate must be positive, got {lr}")
        from bitsandbytes.optim import Adam8bit as Inner  # pyright: ignore[reportMissingImports]  (an extra)

        self.params = list(params)
        # Views in the order of memory, because bitsandbytes would step a copy of a tensor that is not contiguous.
        self.flat = [torch.nn.Parameter(_flatten(p.detach()), requires_grad=False) for p in self.params]
        self.inner: Any = Inner(self.flat, lr=lr)

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor]) -> None:
        """Takes one step, given a gradient of each param's shape."""
        for flat, param, grad in zip(self.flat, self.params, grads, strict=True):
            alike = grad if grad.stride() == param.stride() else torch.empty_like(param).copy_(grad)
            flat.grad = _flatten(alike.detach()).to(flat.dtype)
        self.inner.step()
        self.inner.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the params and of the moments."""
        held = {f"{i}.param": param.detach().clone() for i, param in enumerate(self.params)}
        for i, flat in enumerate(self.flat):
            state = self.inner.state.get(flat, {})
            held |= {f"{i}.{key}": state[key].clone() for key in MOMENTS if key in state}
            held |= {f"{i}.step": torch.tensor(state["step"])} if "step" in state else {}
        return held

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a state that `state_dict` gave; ValueError where another optimiser gave it."""
        kinds = {key.partition(".")[2] for key in state}
        if not kinds <= {"param", "step", *MOMENTS}:
            raise ValueError("the checkpoint holds the moments of another optimiser: resume it where it was written")
        for i, (param, flat) in enumerate(zip(self.params, self.flat, strict=True)):
            param.copy_(state[f"{i}.param"])
            if f"{i}.step" not in state:
                self.inner.state.pop(flat, None)
                continue
            if "step" not in self.inner.state[flat]:
                self.inner.init_state(self.inner.param_groups[0], flat, 0, i)
            mine = self.inner.state[flat]
            mine["step"] = int(state[f"{i}.step"])
            for key in MOMENTS:
                if key in mine:
                    mine[key].copy_(state[f"{i}.{key}"])


def _flatten(tensor: Tensor) -> Tensor:
    """Flattens a tensor in the order in which its numbers lie in memory, as a view."""
    return tensor.as_strided((tensor.numel(),), (1,))
