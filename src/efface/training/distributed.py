"""Trains one erasure in several processes: each predicts its shard of the rows, and all take the same step.

Every process runs the same loop with the same random choices. The rows of a pass are split among the processes and
their predictions are gathered, so that losses, balances and searches see all n rows, as in a single process. In the
backward pass a process' gradient flows through its own rows alone, multiplied by the number of processes; the mean over
the processes is then the whole gradient, and a loss that depends on no rows (the cost of a mask) counts once. Start the
processes by `accelerate launch -m efface erase …`.
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
    """The processes that train together, and the rank of this one."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and reports progress."""
        return self.rank == 0

    def shard(self, n: int) -> slice:
        """This process' slice of n rows; the shards of two processes differ by one row at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def shard_apply(self, compute: Callable[[slice], Tensor], n: int) -> Tensor:
        """The result [n, ...] of `compute` for all n rows: each process computes its shard and gathers the others.

        With fewer rows than processes, each process computes all rows. The result is differentiable: the gradient
        reaches this process' shard alone, multiplied by `size`.

        Args:
            compute: gives the result [m, ...] of the m rows in a slice of range(n).
        """
        if n < self.size or self.size == 1:
            return compute(slice(0, n))
        return _Gathered.apply(compute(self.shard(n)), self, n)  # type: ignore[return-value]

    def all_reduce_mean(self, grads: Sequence[Tensor]) -> Sequence[Tensor]:
        """The mean of each tensor over the processes."""
        if self.size == 1:
            return grads
        from accelerate.utils import reduce

        return [reduce(grad.contiguous(), reduction="mean") for grad in grads]  # type: ignore[misc]

    def all_gather_draws(self, draw: Draw) -> list[Draw]:
        """Gathers the drawings of all processes, in the order of their ranks; all must have the same shape."""
        if self.size == 1:
            return [draw]
        columns = [self.all_gather(tensor) for tensor in vars(draw).values()]
        return [Draw(*column) for column in zip(*columns, strict=True)]

    def find_any(self, flags: Sequence[bool], device: torch.device) -> list[bool]:
        """Which of the flags are set in at least one process, so that all processes decide alike."""
        if self.size == 1 or not flags:
            return list(flags)
        return self.all_gather(torch.tensor(flags, device=device)).any(dim=0).tolist()

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Stacks the tensors of all processes to [size, ...]; all must have the same shape."""
        from accelerate.utils import gather

        return gather(tensor.contiguous()[None])  # type: ignore[return-value]

    def barrier(self) -> None:
        """Waits until all processes have called this."""
        if self.size > 1:
            torch.distributed.barrier()


class _Gathered(torch.autograd.Function):
    """All rows, gathered from each process' own shard."""

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


def find_process_group() -> ProcessGroup:
    """The processes inside `join_process_group`; outside of it, this process alone."""
    if not (is_available() and is_initialized()):
        return ProcessGroup()
    return ProcessGroup(torch.distributed.get_rank(), torch.distributed.get_world_size())


@contextmanager
def join_process_group(device: str | None = None) -> Iterator[ProcessGroup]:
    """Joins the processes that a launcher (accelerate, torchrun) started to one group; without one it is one process.

    Raises:
        ValueError: there are more processes than GPUs, or `device` names one of several GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or find_process_group().size > 1:
        yield find_process_group()
        return
    from accelerate import PartialState

    local, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])), torch.cuda.device_count()
    cpu = device == "cpu" or (device is None and not gpus)
    if device and ":" in device:
        raise ValueError(f"{local} processes can't all be on {device!r}; give --device {device.partition(':')[0]}")
    if not cpu and local > gpus:
        raise ValueError(f"{local} processes on {gpus} GPUs; start one for each GPU, or give --device cpu")
    state = PartialState(cpu=cpu, backend="gloo" if cpu else "nccl")
    try:
        yield find_process_group()
    finally:
        state.destroy_process_group()
