"""Adam with moments of 8 bits by bitsandbytes, whose kernels take one launch a tensor on a GPU.

Blocks of 256 numbers, rounded to the nearest level of a dynamic tree; tensors of fewer than 4096 numbers keep moments
of 32 bits (Dettmers et al., arXiv 2110.02861). A run so trained is the same as one with ours up to rounding.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

MOMENTS = ("state1", "state2", "absmax1", "absmax2")
"""What bitsandbytes keeps of each tensor, beside the number of steps: its levels are the same in every run."""


def is_installed() -> bool:
    """Whether bitsandbytes can be imported; it is asked for where there is a GPU alone."""
    return importlib.util.find_spec("bitsandbytes") is not None


@final
class Adam8bitBnb:
    """bitsandbytes' Adam at torch's default betas and without weight decay, as `Adam8bit` looks from outside."""

    def __init__(self, params: Sequence[Tensor], lr: float) -> None:
        if lr <= 0:
            raise ValueError(f"the learning rate must be positive, got {lr}")
        from bitsandbytes.optim import Adam8bit as Inner  # pyright: ignore[reportMissingImports]  (an extra)

        self.params = list(params)
        # Views in the order of memory: bitsandbytes would replace what is not contiguous by a copy.
        self.flat = [torch.nn.Parameter(_flatten(p.detach()), requires_grad=False) for p in self.params]
        self.inner: Any = Inner(self.flat, lr=lr)

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor]) -> None:
        """One step, given a gradient of each param's shape."""
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
    """The numbers in the order in which they lie in memory, as a view."""
    return tensor.as_strided((tensor.numel(),), (1,))
