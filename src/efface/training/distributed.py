"""Several processes at one erasure: each takes its share of the rows of every pass, and all take the same step.

Every process runs the same loop on the same random choices. A pass of n rows is split, the replies are put together
again, so that losses, balances and searches see all n as a single process would. A process' gradient flows through its
own rows alone, `size` times as strong; the mean over the processes is then the whole gradient, and what does not come
from rows (the cost of a mask) counts once. Started by `accelerate launch -m efface erase …`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.distributed import is_available, is_initialized

from ..models.trajectory import Draw


@final
@dataclass(frozen=True)
class ProcessGroup:
    """The processes at work, and which of them this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def shard(self, n: int) -> slice:
        """The rows of n that are this process' own: shares differ by one at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def shard_apply(self, answer: Callable[[slice], Tensor], n: int) -> Tensor:
        """`answer` [n, ...] of which each process works out its share; with fewer rows than processes, each does all.

        Differentiable: the gradient of this process' share is `size` times as strong, that of the others' is none.
        """
        if n < self.size or self.size == 1:
            return answer(slice(0, n))
        return _Gathered.apply(answer(self.shard(n)), self, n)  # type: ignore[return-value]

    def all_reduce_mean(self, grads: Sequence[Tensor]) -> Sequence[Tensor]:
        """The mean of each over the processes."""
        if self.size == 1:
            return grads
        from accelerate.utils import reduce

        return [reduce(grad.contiguous(), reduction="mean") for grad in grads]  # type: ignore[misc]

    def all_gather_draws(self, draw: Draw) -> list[Draw]:
        """Every process' drawing, in the order of the processes; all of one shape."""
        if self.size == 1:
            return [draw]
        columns = [self.all_gather(tensor) for tensor in vars(draw).values()]
        return [Draw(*column) for column in zip(*columns, strict=True)]

    def any_of(self, flags: Sequence[bool], device: torch.device) -> list[bool]:
        """Where at least one process says so: what all must decide alike."""
        if self.size == 1 or not flags:
            return list(flags)
        return self.all_gather(torch.tensor(flags, device=device)).any(dim=0).tolist()

    def all_gather(self, tensor: Tensor) -> Tensor:
        """[size, ...]: every process' tensor, all of one shape."""
        from accelerate.utils import gather

        return gather(tensor.contiguous()[None])  # type: ignore[return-value]

    def barrier(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()


class _Gathered(torch.autograd.Function):
    """All shares of the rows, from each process' own."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, mine: ProcessGroup, n: int) -> Tensor:
        ctx.mine, ctx.n = mine, n
        most = -(-n // mine.size)
        full = torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])])
        shares = [ProcessGroup(rank, mine.size).shard(n) for rank in range(mine.size)]
        parts = zip(mine.all_gather(full), shares, strict=True)
        return torch.cat([part[: share.stop - share.start] for part, share in parts])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0][ctx.mine.shard(ctx.n)] * ctx.mine.size, None, None


def process_group() -> ProcessGroup:
    """The processes that `launched` brought together; this one alone where it did not."""
    if not (is_available() and is_initialized()):
        return ProcessGroup()
    return ProcessGroup(torch.distributed.get_rank(), torch.distributed.get_world_size())


@contextmanager
def join_process_group(device: str | None = None) -> Iterator[ProcessGroup]:
    """Within, the processes that a launcher (accelerate, torchrun) started are a team; alone where none did.

    Raises:
        ValueError: more processes than there are GPUs, or a `device` that is one of several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or process_group().size > 1:
        yield process_group()
        return
    from accelerate import PartialState

    local, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])), torch.cuda.device_count()
    cpu = device == "cpu" or (device is None and not gpus)
    if device and ":" in device:
        raise ValueError(f"{local} processes can't all be on {device!r}; give --device {device.partition(':')[0]}")
    if not cpu and local > gpus:
        raise ValueError(f"{local} processes on {gpus} GPUs; start as many as there are, or give --device cpu")
    state = PartialState(cpu=cpu, backend="gloo" if cpu else "nccl")
    try:
        yield process_group()
    finally:
        state.destroy_process_group()
