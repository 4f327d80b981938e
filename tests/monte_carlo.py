"""How far rounding may move a result: the same work in fp32, with each operation off at random by a unit roundoff.

This is Monte Carlo arithmetic (Parker, Pierce and Eggert, Computing in Science & Engineering 2(4), 2000). A number that
an operation gives in half precision is its exact value times (1 + d) with |d| at most the format's unit roundoff u; one
that is smaller than all normal numbers is off by at most half of the smallest number (IEEE 754). Here the networks work
in fp32, and each number that an operation within them gives, forwards and backwards, is moved by such a d, uniform in
[-u, u]. How far a few such runs end from the run without moves follows from the format, the number of operations and
the condition of the work. Nothing that was observed in half precision enters.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

UNIT: Mapping[torch.dtype, float] = {
    dtype: torch.finfo(dtype).eps / 2 for dtype in (torch.float16, torch.bfloat16, torch.float32)
}
"""The unit roundoff of each format."""
MARGIN = 2.0
"""How many times the simulated distance a real one may be. The root mean square of two distances, each the sum of many
small moves, is known to a third; and moves of the largest size that rounding may have are no smaller than its own."""
LONGEST = 1024
"""Numbers that one operation of the tiny models sums, at most. Sums are taken in fp32 at all dtypes, so that those of
fp32 are off by up to about sqrt(n) of its units (Higham and Mary, SIAM Journal on Scientific Computing 41(5), 2019)."""
MOVES = {"clone", "copy_", "_to_copy", "cat", "stack", "embedding", "index", "index_select", "gather", "repeat", "flip"}
MOVES |= {"slice_backward", "select_backward", "constant_pad_nd", "where", "masked_fill", "upsample_nearest2d"}
MOVES |= {"new_zeros", "zeros_like", "ones_like", "empty_like", "fill_", "zero_", "relu", "neg", "detach"}
"""Operations that hand numbers on, or change their sign: what they are given is rounded already."""


class Rounding(TorchDispatchMode):
    """Within, what an operation of the networks gives is moved by at most the unit roundoff of a format.

    Args:
        dtype: the format, of half precision.
        seed: of the moves.
    """

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        TorchDispatchMode.__init__(self)
        rng = torch.Generator().manual_seed(seed)
        self.ways = torch.empty(1 << 20).uniform_(-1, 1, generator=rng)
        self.factors, self.places = 1 + UNIT[dtype] * self.ways, random.Random(seed)
        # In bf16, whose exponents are those of fp32, nothing is that small.
        self.least = torch.finfo(dtype).smallest_normal * UNIT[dtype] if dtype == torch.float16 else 0.0
        self.depth = self.moved = 0

    def move(self, x: Any) -> Any:
        """A tensor as it might have been rounded; anything else, and whole numbers, as they are."""
        if not isinstance(x, Tensor) or x.dtype != torch.float32:
            return x
        self.moved += x.numel()
        with torch.no_grad():
            moved = x * self._take(self.factors, x)
            return moved + self.least * self._take(self.ways, x) if self.least else moved

    def move_with_grad(self, x: Any) -> Any:
        """The same for what a gradient goes through, of which the move itself is no part."""
        return x + (self.move(x.detach()) - x.detach()) if isinstance(x, Tensor) and x.dtype == torch.float32 else x

    def _take(self, pool: Tensor, x: Tensor) -> Tensor:
        n = x.numel()
        if n > len(pool) // 2:
            pool = pool.repeat(1 + 2 * n // len(pool))
        start = self.places.randrange(len(pool) - n)
        return pool[start : start + n].view(x.shape)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        if not self.depth or name in MOVES:
            return out
        if name.endswith("_") and not name.startswith("_"):
            args[0].copy_(self.move(args[0]))
            return out
        held = {a.untyped_storage().data_ptr() for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)}
        return tree_map(lambda o: o if _is_view(o, held) else self.move(o), out)


def _is_view(out: Any, held: set[int]) -> bool:
    return isinstance(out, Tensor) and out.untyped_storage().data_ptr() in held


@contextmanager
def rounded(modules: Sequence[nn.Module], dtype: torch.dtype, seed: int) -> Iterator[Rounding]:
    """Within, these networks, which hold fp32, work as roundly as in `dtype`, and so does what is differentiated."""
    mode, grad = Rounding(dtype, seed), torch.autograd.grad

    def enter(_: nn.Module, args: Any, kwargs: Any) -> Any:
        moved = tree_map(mode.move_with_grad, (args, kwargs))
        mode.depth += 1
        return moved

    def leave(*_: Any) -> None:
        mode.depth -= 1

    def differentiate(*args: Any, **kwargs: Any) -> Any:
        mode.depth += 1
        try:
            return grad(*args, **kwargs)
        finally:
            mode.depth -= 1

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(mode)
        torch.autograd.grad = differentiate
        try:
            yield mode
        finally:
            torch.autograd.grad = grad


def measure_distance(found: Tensor, right: Tensor) -> float:
    """The distance of two results of any shape, as a share of the right one's length."""
    return float((found.double().cpu() - right.double()).norm() / right.double().norm())


def measure_levels(found: Tensor, right: Tensor) -> float:
    """The mean difference of pictures of any shape, in levels of 255.

    That the numbers of a picture are rounded to whole levels does not change this mean, in expectation; it makes a
    difference of squares larger.
    """
    return float((found.double().cpu() - right.double().cpu()).abs().mean())


def simulate(
    work: Callable[[], Tensor],
    right: Tensor,
    modules: Sequence[nn.Module],
    dtype: torch.dtype,
    measure: Callable[[Tensor, Tensor], float] = measure_distance,
    runs: int = 2,
) -> float:
    """How far some work in fp32 ends from its right result when it is rounded: the root mean square of a few runs.

    Args:
        measure: tells how far two results are apart.
    """
    found = []
    for seed in range(runs):
        with rounded(modules, dtype, seed) as mode:
            found.append(measure(work(), right))
        assert mode.moved, "no operation of the networks was seen"
    return sqrt(sum(each**2 for each in found) / runs)


def compute_bound(simulated: float, of: torch.dtype, dtype: torch.dtype, power: float = 1) -> float:
    """How far a run in `dtype` may end, from what was simulated for `of`.

    Args:
        power: of the roundoff that distances grow with: 1 for what is smooth, to first order.
    """
    wide = sqrt(LONGEST) if dtype == torch.float32 else 1
    return MARGIN * simulated * (wide * UNIT[dtype] / UNIT[of]) ** power
