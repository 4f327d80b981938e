"""Adam with moments of 8 bits, against Adam."""

from __future__ import annotations

import pytest
import torch

from benchmarks.adam8bit_by_tensor import Adam8bitByTensor
from benchmarks.optimiser import count_step
from efface.planning.tracker import AllocationTracker
from efface.training.adam8bit import BLOCK, FIRST, SECOND, Adam8bit
from efface.training.optim import Adam32bit


def build_rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("scale", "floor"), [(FIRST, 0), (SECOND, 1)])
def test_rounding_keeps_the_mean_and_is_never_far(scale, floor):
    x = torch.exp2(-12 * torch.rand(4, BLOCK, generator=build_rng()))
    x[3] = 0
    draws = []
    for seed in range(400):
        level, top = scale.encode(x, floor, torch.rand(x.shape, generator=build_rng(seed)))
        assert level.min() >= 0
        assert level.max() <= scale.levels
        draws.append(scale.decode(level, top))
    mean = torch.stack(draws).mean(0)
    assert torch.allclose(mean[:3], x[:3], rtol=0.02)
    step = 2 ** (scale.octaves / (scale.levels - 1)) - 1
    assert ((draws[0][:3] - x[:3]).abs() / x[:3]).max() <= step
    assert (mean[3] == 0).all()


def test_the_second_moment_never_vanishes():
    x = torch.full((1, BLOCK), 1e-30)
    x[0, 0] = 1.0
    level, top = SECOND.encode(x, 1, torch.rand(x.shape, generator=build_rng()))
    assert level.min() == 1
    assert (SECOND.decode(level, top) > 0).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_steps_as_adam_does(layout):
    """Over 60 steps at noisy gradients of very different sizes: within a few percent of the way that Adam goes."""
    start = torch.randn(8, 16, 3, 3, generator=build_rng()).contiguous(memory_format=layout)
    size = torch.exp2(-10 * torch.rand(start.shape, generator=build_rng(1)))
    mine, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    small, adam = Adam8bit([mine], 1e-2), Adam32bit([theirs], 1e-2)
    for i in range(60):
        grad = size * (1 + torch.randn(start.shape, generator=build_rng(2 + i)))
        small.step([grad])
        adam.step([grad])
    assert (mine - theirs).norm() <= 0.05 * (theirs - start).norm()


def test_it_finds_the_minimum_of_a_regression():
    a, x = torch.randn(200, 30, generator=build_rng()), torch.randn(30, generator=build_rng(1))
    lost = []
    for kind in (Adam32bit, Adam8bit):
        w = torch.zeros(30, requires_grad=True)
        optimiser = kind([w], 0.05)
        for _ in range(300):
            (grad,) = torch.autograd.grad((a @ w - a @ x).square().mean(), [w])
            optimiser.step([grad])
        lost.append(float((a @ w.detach() - a @ x).square().mean()))
    assert max(lost) < 1e-3


def test_it_takes_a_quarter():
    param = torch.zeros(1000, 1000, requires_grad=True)
    small = Adam8bit([param], 1e-3)
    assert sum(t.nbytes for t in (*small.m, *small.v, *small.tops)) < 0.26 * 2 * param.nbytes


def test_it_resumes_as_if_nothing_had_been():
    params = [torch.randn(5, 300, generator=build_rng()).requires_grad_() for _ in range(2)]
    whole, first = Adam8bit([params[0]], 1e-2), Adam8bit([params[1]], 1e-2)
    for i in range(6):
        if i == 3:
            state, params[1] = first.state_dict(), torch.zeros(5, 300, requires_grad=True)
            first = Adam8bit([params[1]], 1e-2)
            first.load_state_dict(state)
        grad = torch.randn(5, 300, generator=build_rng(i))
        whole.step([grad])
        first.step([grad])
    assert torch.equal(*params)


def test_the_first_step_is_of_the_rate_and_a_rate_is_above_nothing():
    down = torch.zeros(3, requires_grad=True)
    Adam8bit([down], 0.1).step([torch.tensor([1.0, -2.0, 0.5])])
    assert torch.allclose(down, torch.tensor([-0.1, 0.1, -0.1]), rtol=0.1)
    with pytest.raises(ValueError, match="must be positive"):
        Adam8bit([down], 0.0)


def test_narrow_gradients_are_widened_piece_by_piece(monkeypatch):
    """The same steps as by their wide copies, and never a quarter of the bytes at once that these have."""
    start, grad = (
        torch.randn(1024, BLOCK, generator=build_rng()),
        torch.randn(1024, BLOCK, generator=build_rng(1)).bfloat16(),
    )
    monkeypatch.setattr("efface.training.adam8bit.CHUNK", 4 * BLOCK)
    ways = []
    for given in (grad, grad.float()):
        mine = start.clone().requires_grad_()
        small = Adam8bit([mine], 1e-2)
        with AllocationTracker([mine, given, *small.m, *small.v, *small.tops]) as tally:
            for _ in range(3):
                small.step([given])
        assert tally.peak < start.numel()
        ways.append(mine.detach())
    assert torch.equal(*ways)


SHAPES = [(3,), (300,), (8, 16, 3, 3), (17, 5), (), (40, 64)]


@pytest.mark.parametrize("chunk", [2**22, 4 * BLOCK])
def test_tensors_taken_together_have_the_numbers_that_they_have_one_by_one(chunk, monkeypatch):
    """To the bit, over steps at wide and narrow gradients, in any layout, and where a tensor is in several groups."""
    for module in ("efface.training.adam8bit", "benchmarks.adam8bit_by_tensor"):
        monkeypatch.setattr(f"{module}.CHUNK", chunk)
    own = [torch.randn(shape, generator=build_rng(i)).requires_grad_() for i, shape in enumerate(SHAPES)]
    own[2] = own[2].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    theirs = [p.detach().clone(memory_format=torch.preserve_format).requires_grad_() for p in own]
    together, apart = Adam8bit(own, 1e-2), Adam8bitByTensor(theirs, 1e-2)
    assert len(together.groups) == (1 if chunk > 4 * BLOCK else 6)
    for i in range(8):
        grads = [torch.randn(shape, generator=build_rng(9 * i + k)) * 10.0 ** (k - 3) for k, shape in enumerate(SHAPES)]
        grads = [grad.bfloat16() for grad in grads] if i == 5 else grads
        together.step(grads)
        apart.step(grads)
    for mine, other in ((own, theirs), (together.m, apart.m), (together.v, apart.v), (together.tops, apart.tops)):
        assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))


def test_a_step_of_many_tensors_asks_for_a_twentieth_of_the_operations():
    params = [torch.zeros(16, 8) for _ in range(200)]
    grads = [torch.ones(16, 8) for _ in range(200)]
    before, after = (count_step(kind, params, grads) for kind in (Adam8bitByTensor, Adam8bit))
    assert before.operations == 200 * 125 and after.operations < before.operations / 20
    assert after.launches <= 2 * 200 + 80  # two draws of random numbers a tensor, and the rest once


def test_what_is_no_number_stays_none():
    param = torch.zeros(4, requires_grad=True)
    small = Adam8bit([param], 0.1)
    small.step([torch.tensor([1.0, float("nan"), 0.0, 0.0])])
    assert param.isnan().any()
