"""Adam whose two moments take 8 bits a number instead of 32.

Each block of 256 numbers keeps its largest in fp32 and stores every number as a level on a logarithmic scale below it:
127 levels over 16 octaves with a sign for the first moment, 255 levels over 32 octaves for the second, which is a
square. A number between two levels is rounded to one of them at random, such that its mean is kept: at b2 = 0.999 a
step changes the second moment by less than a level, and rounding to the nearest would never change it. The idea of
8-bit moments by blocks is Dettmers et al.'s (arXiv 2110.02861); levels, random rounding and the floor under the second
moment are our own.

Tensors are stepped in groups of up to `CHUNK` numbers, large tensors in parts, so that one operation serves hundreds of
small tensors. On a CPU each tensor has random numbers of its own, which do not depend on its group; on a GPU those of a
group are drawn at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import final

import torch
from torch import Tensor

BLOCK, CHUNK = 256, 2**22
BETAS, EPS = (0.9, 0.999), 1e-8


@final
@dataclass(frozen=True)
class Scale:
    """Levels 1 to `levels` are top * 2^(-octaves), …, top, evenly spaced in the logarithm; level 0 is 0."""

    levels: int
    octaves: int

    def encode(self, x: Tensor, floor: int, chance: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes x [b, BLOCK], not below 0: levels [b, BLOCK] as fp32, and the largest number [b, 1] of each block.

        The mean over the random choice is x itself, except that numbers below the level `floor` are raised to it.

        Args:
            x: numbers [b, BLOCK].
            floor: the lowest level of a number.
            chance: random numbers [b, BLOCK], uniform in [0, 1).
        """
        top = x.amax(dim=1, keepdim=True)
        share = torch.where(there := top > 0, x / top, 0.0)
        exact = self.levels + share.log2() * (self.levels - 1) / self.octaves
        low = exact.floor().clamp_(0, self.levels - 1).nan_to_num_(0.0)  # the block's largest number is NaN then
        shares, place = self.list_shares(x.device), low.long()
        below, above = shares[place], shares[place + 1]
        odds = (share - below) / (above - below)
        chosen = low + (chance < odds)
        return torch.where(there, chosen.clamp_(min=floor), 0.0), top

    def decode(self, level: Tensor, top: Tensor) -> Tensor:
        """Decodes levels [b, BLOCK] and largest numbers `top` [b, 1] to numbers [b, BLOCK]."""
        return self.list_shares(level.device)[level.long()] * top

    def list_shares(self, device: torch.device) -> Tensor:
        """The share [levels + 1] of the largest number that each level stands for."""
        return _build_shares(self, device)


@cache
def _build_shares(scale: Scale, device: torch.device) -> Tensor:
    level = torch.arange(scale.levels + 1, device=device, dtype=torch.float32)
    there = torch.exp2((level - scale.levels) * scale.octaves / (scale.levels - 1))
    return torch.where(level > 0, there, 0.0)


FIRST, SECOND = Scale(127, 16), Scale(255, 32)


@dataclass(frozen=True)
class Piece:
    """Consecutive numbers of a tensor: all of a small one, or `CHUNK` of a large one."""

    index: int
    """The index of the tensor."""
    start: int
    """The position of the first number in the tensor's memory."""
    flat: Tensor
    """The numbers [n], a view into the param."""

    @property
    def blocks(self) -> int:
        return -(-len(self.flat) // BLOCK)


@final
class Adam8bit:
    """torch's Adam at its default betas and without weight decay, with both moments rounded to 8 bits.

    Gradients may have a narrower dtype than the params: they are widened group by group, never all at once.

    Raises:
        ValueError: the learning rate is not positive, or the params lie on several devices.
    """

    def __init__(self, params: Sequence[Tensor], lr: float) -> None:
        if lr <= 0:
            raise ValueError(f"the learning rate must be positive, got {lr}")
        self.params, self.lr, self.taken = list(params), lr, 0
        if len(places := {str(p.device) for p in self.params}) > 1:
            raise ValueError(f"all params must be on one device, got {', '.join(sorted(places))}")
        blocks = [-(-p.numel() // BLOCK) for p in self.params]
        device = self.params[0].device
        self._m = torch.zeros(sum(blocks), BLOCK, dtype=torch.int8, device=device)
        self._v = torch.zeros(sum(blocks), BLOCK, dtype=torch.uint8, device=device)
        self._tops = torch.zeros(2, sum(blocks), 1, device=device)
        self.m, self.v, self.tops = self._m.split(blocks), self._v.split(blocks), self._tops.split(blocks, dim=1)
        self.groups = _group([_flatten(p.detach(), p) for p in self.params])

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor]) -> None:
        """Takes one step, given a gradient of each param's shape."""
        self.taken += 1
        given = [_flatten(grad.detach(), param) for param, grad in zip(self.params, grads, strict=True)]
        first, rng = 0, torch.Generator("cpu")
        for number, group in enumerate(self.groups):
            part = slice(first, first := first + sum(piece.blocks for piece in group))
            chance = torch.empty(2, part.stop - part.start, BLOCK, device=self._m.device)
            if chance.is_cuda:
                chance.uniform_(generator=torch.Generator(chance.device).manual_seed(self.taken * 1_000_003 + number))
            else:
                rng = self._draw_apart(group, chance, rng)
            self._step_group(group, part, given, chance)

    def _draw_apart(self, group: Sequence[Piece], chance: Tensor, rng: torch.Generator) -> torch.Generator:
        """Draws each tensor's own random numbers for both moments; parts of a large tensor continue one sequence."""
        sizes = [piece.blocks for piece in group]
        for piece, *rows in zip(group, *(side.split(sizes) for side in chance), strict=True):
            if not piece.start:
                rng = torch.Generator().manual_seed(self.taken * 1_000_003 + piece.index)
            for row in rows:
                row.uniform_(generator=rng)
        return rng

    def _step_group(self, group: Sequence[Piece], part: slice, given: Sequence[Tensor], chance: Tensor) -> None:
        """Takes one step of the group whose moments are these blocks."""
        sizes = [n for piece in group for n in (len(piece.flat), piece.blocks * BLOCK - len(piece.flat))]
        g = torch.zeros(sum(sizes), device=self._m.device)
        own = [given[p.index] if p.start == 0 and len(p.flat) == len(given[p.index]) else _cut(given, p) for p in group]
        torch._foreach_copy_(g.split(sizes)[::2], own)  # pyright: ignore[reportPrivateImportUsage]
        g = g.view(-1, BLOCK)
        code, (top_m, top_v) = self._m[part], self._tops[:, part]
        m = _build_signed_shares(code.device)[code.long() + FIRST.levels].mul_(top_m).lerp_(g, 1 - BETAS[0])
        v = SECOND.decode(self._v[part], top_v).mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
        level, top = FIRST.encode(m.abs(), 0, chance[0])
        self._m[part], top_m[:] = level.mul_(m.sign()), top
        level, top = SECOND.encode(v, 1, chance[1])
        self._v[part], top_v[:] = level, top
        wide = v.div_(1 - BETAS[1] ** self.taken).sqrt_().add_(EPS)
        step = m.div_(1 - BETAS[0] ** self.taken).div_(wide).flatten().to(group[0].flat.dtype)
        torch._foreach_sub_([piece.flat for piece in group], step.split(sizes)[::2], alpha=self.lr)  # pyright: ignore[reportPrivateImportUsage]

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the params and of the moments."""
        kinds = {"param": [p.detach() for p in self.params], "m": self.m, "v": self.v, "tops": self.tops}
        held = {f"{i}.{kind}": tensor.clone() for kind, tensors in kinds.items() for i, tensor in enumerate(tensors)}
        return held | {"taken": torch.tensor(self.taken)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a state that `state_dict` gave; ValueError where another optimiser gave it."""
        if "taken" not in state:
            raise ValueError("the checkpoint holds the moments of another optimiser: resume it where it was written")
        self.taken = int(state["taken"])
        for i, param in enumerate(self.params):
            for kind, mine in (("param", param), ("m", self.m[i]), ("v", self.v[i]), ("tops", self.tops[i])):
                mine.copy_(state[f"{i}.{kind}"])


@cache
def _build_signed_shares(device: torch.device) -> Tensor:
    """The shares [2 levels + 1] of the largest number that the first moment's codes -levels, …, levels stand for."""
    shares = FIRST.list_shares(device)
    return torch.cat([-shares[1:].flip(0), shares])


def _group(flats: Sequence[Tensor]) -> list[list[Piece]]:
    """Groups the numbers of these tensors by dtype, with at most `CHUNK` numbers a group, padding included."""
    groups: list[list[Piece]] = []
    room = 0
    for i, flat in enumerate(flats):
        for start in range(0, len(flat), CHUNK):
            piece = Piece(i, start, flat[start : start + CHUNK])
            if piece.blocks > room or groups[-1][0].flat.dtype != flat.dtype:
                groups.append([])
                room = CHUNK // BLOCK
            groups[-1].append(piece)
            room -= piece.blocks
    return groups


def _flatten(tensor: Tensor, like: Tensor) -> Tensor:
    """Flattens a tensor in the order in which the numbers of `like` lie in memory; a view where that is possible."""
    alike = tensor if tensor.stride() == like.stride() else torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
    return alike.as_strided((alike.numel(),), (1,))


def _cut(given: Sequence[Tensor], piece: Piece) -> Tensor:
    return given[piece.index][piece.start : piece.start + len(piece.flat)]
