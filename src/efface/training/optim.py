"""Adam whose state is a flat dictionary of tensors, so that a checkpoint needs no pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, final

import torch
from torch import Tensor

from .adam8bit import Adam8bit
from .adam8bit_bnb import Adam8bitBnb, is_installed


def build_adam(params: Sequence[Tensor], lr: float, moments: Literal[32, 8]) -> Adam32bit | Adam8bit | Adam8bitBnb:
    """Makes Adam for these leaf tensors, with two moments of 32 or 8 bits a number."""
    return choose_adam(moments, all(param.is_cuda for param in params))(params, lr)


def choose_adam(moments: Literal[32, 8], on_gpu: bool) -> type[Adam32bit] | type[Adam8bit] | type[Adam8bitBnb]:
    """Chooses Adam's class: for 8 bits on a GPU bitsandbytes' where it is installed (the extra `cuda`), else ours."""
    if moments == 32:
        return Adam32bit
    return Adam8bitBnb if on_gpu and is_installed() else Adam8bit


@final
class Adam32bit:
    """torch's Adam at its default betas and without weight decay, for given leaf tensors."""

    def __init__(self, params: Sequence[Tensor], lr: float, maximize: bool = False) -> None:
        if lr <= 0:
            raise ValueError(f"the learning rate must be positive, got {lr}")
        self.params = list(params)
        # The fused step makes no copies of the params; on a CPU it would round differently from the plain one.
        fused = all(param.is_cuda for param in self.params)
        self.inner = torch.optim.Adam(self.params, lr=lr, maximize=maximize, fused=fused)

    def step(self, grads: Sequence[Tensor | None]) -> None:
        """Takes one step, given a gradient of each param's shape; None leaves the param and its moments as they are."""
        for param, grad in zip(self.params, grads, strict=True):
            param.grad = None if grad is None else grad.to(param.dtype)
        self.inner.step()
        self.inner.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the params and of both moments."""
        moments = {
            f"{i}.{key}": tensor.clone()
            for i, state in self.inner.state_dict()["state"].items()
            for key, tensor in state.items()
        }
        return moments | {f"{i}.param": param.detach().clone() for i, param in enumerate(self.params)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores a state from `state_dict`, with the values of the params."""
        fresh = self.inner.state_dict()
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            index, key = name.split(".")
            if key == "param":
                self.params[int(index)].copy_(tensor)
            else:
                moments.setdefault(int(index), {})[key] = tensor.clone()
        self.inner.load_state_dict({"state": moments, "param_groups": fresh["param_groups"]})
