"""bitsandbytes' Adam of 8 bits behind the project's face, with a stand-in that has its interface (0.50.2)."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from efface.training import optim
from efface.training.adam8bit import Adam8bit
from efface.training.adam8bit_bnb import Adam8bitBnb
from efface.training.optim import Adam32bit, choose_adam


class Inner(torch.optim.Optimizer):
    """As bitsandbytes.optim.Adam8bit: moments by param in `state`, made by `init_state`; steps as Adam does."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        torch.optim.Optimizer.__init__(self, params, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8})

    def init_state(self, group: dict[str, Any], p: Tensor, gindex: int, pindex: int) -> None:
        assert self.param_groups[gindex]["params"][pindex] is p
        self.state[p] |= {"step": 0, "state1": torch.zeros_like(p), "state2": torch.zeros_like(p)}
        self.state[p] |= {"absmax1": torch.zeros(1), "absmax2": torch.zeros(1), "qmap1": torch.zeros(256)}

    def step(self) -> None:  # type: ignore[override]
        (group,) = self.param_groups
        for i, p in enumerate(group["params"]):
            if not self.state[p]:
                self.init_state(group, p, 0, i)
            own = self.state[p]
            assert p.is_contiguous() and p.grad.is_contiguous() and p.grad.dtype == p.dtype
            own["step"] += 1
            own["state1"].lerp_(p.grad, 0.1)
            own["state2"].mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
            m, v = own["state1"] / (1 - 0.9 ** own["step"]), own["state2"] / (1 - 0.999 ** own["step"])
            p.sub_(m / (v.sqrt() + 1e-8), alpha=group["lr"])


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    package, part = ModuleType("bitsandbytes"), ModuleType("bitsandbytes.optim")
    part.Adam8bit = Inner  # type: ignore[attr-defined]
    package.optim = part  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", part)


def draw_grads(i: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(i)
    return [torch.randn(4, 6, 3, 3, generator=rng), torch.randn(5, generator=rng).bfloat16()]


def list_params() -> list[Tensor]:
    first, second = (torch.randn(grad.shape, generator=torch.Generator().manual_seed(9)) for grad in draw_grads(0))
    return [first.contiguous(memory_format=torch.channels_last).requires_grad_(), second.requires_grad_()]


def test_it_steps_as_adam_does_in_any_layout_and_dtype() -> None:
    own, theirs = list_params(), list_params()
    bnb, adam = Adam8bitBnb(own, 1e-2), Adam32bit(theirs, 1e-2)
    for i in range(5):
        bnb.step(draw_grads(i))
        adam.step(draw_grads(i))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(own, theirs, strict=True))


def test_it_resumes_as_if_nothing_had_been() -> None:
    own, again = list_params(), list_params()
    whole, first = Adam8bitBnb(own, 1e-2), Adam8bitBnb(again, 1e-2)
    for i in range(4):
        if i == 2:
            state = first.state_dict()
            again = list_params()
            first = Adam8bitBnb(again, 1e-2)
            first.load_state_dict(state)
        whole.step(draw_grads(i))
        first.step(draw_grads(i))
    assert all(torch.equal(a, b) for a, b in zip(own, again, strict=True))
    fresh = Adam8bitBnb(list_params(), 1e-2).state_dict()
    first.load_state_dict(fresh)  # the state before the first step has no moments, and takes them away
    assert first.state_dict().keys() == fresh.keys() == {"0.param", "1.param"}


def test_the_moments_of_one_are_refused_by_the_other() -> None:
    ours, bnb = Adam8bit(list_params(), 1e-2), Adam8bitBnb(list_params(), 1e-2)
    for each in (ours, bnb):
        each.step(draw_grads(0))
    for each, state in ((ours, bnb.state_dict()), (bnb, ours.state_dict())):
        with pytest.raises(ValueError, match="another optimiser"):
            each.load_state_dict(state)


def test_it_is_chosen_on_a_gpu_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "is_installed", lambda: True)
    assert choose_adam(8, on_gpu=True) is Adam8bitBnb
    assert choose_adam(8, on_gpu=False) is Adam8bit and choose_adam(32, on_gpu=True) is Adam32bit
    monkeypatch.setattr(optim, "is_installed", lambda: False)
    assert choose_adam(8, on_gpu=True) is Adam8bit
