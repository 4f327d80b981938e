"""Adam with moments of 8 bits, one tensor at a time, as `efface.training.adam8bit` did before it took many together.

It serves to compare the number of operations (`python -m benchmarks.optimiser`), and to test that results are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

BLOCK, CHUNK = 256, 2**22
BETAS, EPS = (0.9, 0.999), 1e-8


@final
@dataclass(frozen=True)
class Scale:
    """The levels of one moment: 1 to `levels` stand for top * 2^(-octaves), …, top, evenly in the logarithm; level 0 is
    0."""

    levels: int
    octaves: int

    def encode(self, x: Tensor, floor: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the levels [b, BLOCK] as fp32, and the largest value [b, 1] of each block, of x [b, BLOCK] >= 0.

        The mean over the random choice is x itself, except that what lies under the level `floor` is raised to it.
        """
        top = x.amax(dim=1, keepdim=True)
        share = torch.where(top > 0, x / top, torch.zeros_like(x))
        exact = self.levels + share.log2() * (self.levels - 1) / self.octaves
        low = exact.floor().clamp(0, self.levels - 1)
        below, above = self._compute_share(low), self._compute_share(low + 1)
        odds = (share - below) / (above - below)
        chosen = low + (torch.rand(x.shape, device=x.device, generator=rng) < odds)
        return torch.where(top > 0, chosen.clamp(min=floor), torch.zeros_like(chosen)), top

    def decode(self, level: Tensor, top: Tensor) -> Tensor:
        """The numbers that levels [b, BLOCK] stand for."""
        return self._compute_share(level) * top

    def _compute_share(self, level: Tensor) -> Tensor:
        there = torch.exp2((level - self.levels) * self.octaves / (self.levels - 1))
        return torch.where(level > 0, there, torch.zeros_like(there))


FIRST, SECOND = Scale(127, 16), Scale(255, 32)


@final
class Adam8bitByTensor:
    """torch's Adam at its default betas and without weight decay, with both moments rounded to 8 bits.

    Gradients may have a narrower dtype than the params: they are widened chunk by chunk, never all at once.
    """

    def __init__(self, params: Sequence[Tensor], lr: float) -> None:
        if lr <= 0:
            raise ValueError(f"the learning rate must be positive, got {lr}")
        self.params, self.lr, self.taken = list(params), lr, 0
        blocks = [(-(-p.numel() // BLOCK), p.device) for p in self.params]
        self.m = [torch.zeros(n, BLOCK, dtype=torch.int8, device=d) for n, d in blocks]
        self.v = [torch.zeros(n, BLOCK, dtype=torch.uint8, device=d) for n, d in blocks]
        self.tops = [torch.zeros(2, n, 1, device=d) for n, d in blocks]

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor]) -> None:
        self.taken += 1
        for i, (param, grad) in enumerate(zip(self.params, grads, strict=True)):
            rng = torch.Generator(param.device).manual_seed(self.taken * 1_000_003 + i)
            # In the order in which the numbers lie in memory, whatever the strides.
            alike = grad if grad.stride() == param.stride() else torch.empty_like(param).copy_(grad)
            flat, given = (t.detach().as_strided((t.numel(),), (1,)) for t in (param, alike))
            for start in range(0, param.numel(), CHUNK):
                self._step_chunk(i, start, flat[start : start + CHUNK], given[start : start + CHUNK].float(), rng)

    def _step_chunk(self, i: int, start: int, param: Tensor, grad: Tensor, rng: torch.Generator) -> None:
        """Takes one step of a chunk of a tensor, which is a whole number of blocks unless it is the last chunk."""
        g = torch.nn.functional.pad(grad, (0, -len(grad) % BLOCK)).view(-1, BLOCK)
        part = slice(start // BLOCK, start // BLOCK + len(g))
        code, (top_m, top_v) = self.m[i][part].float(), self.tops[i][:, part]
        m = (code.sign() * FIRST.decode(code.abs(), top_m)).lerp_(g, 1 - BETAS[0])
        v = SECOND.decode(self.v[i][part].float(), top_v).mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
        level, top_m[:] = FIRST.encode(m.abs(), 0, rng)
        self.m[i][part] = (level * m.sign()).to(torch.int8)
        level, top_v[:] = SECOND.encode(v, 1, rng)
        self.v[i][part] = level.to(torch.uint8)
        wide = (v / (1 - BETAS[1] ** self.taken)).sqrt_().add_(EPS)
        step = (m / (1 - BETAS[0] ** self.taken)).div_(wide).flatten()[: len(param)]
        param.sub_(step.to(param.dtype), alpha=self.lr)
