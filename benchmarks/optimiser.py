"""Counts operations of a step of Adam with moments of 8 bits, for one tensor at a time and for many together.

    python -m benchmarks.optimiser                                   # keys and values of SD 1.5's cross-attention
    python -m benchmarks.optimiser --weights full --shrink 64        # every tensor of its U-Net, a sixty-fourth of each

Every operation that PyTorch dispatches is counted; on a GPU each is a launch, except for views. The tensors have the
sizes of the published network, divided by `--shrink` along their first axis, so that a step on a CPU is short.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch
import tyro
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from efface.training.adam8bit import Adam8bit

from .adam8bit_by_tensor import Adam8bitByTensor
from .common import describe_machine, write
from .sizes import build_pipeline

KEYS_AND_VALUES = re.compile(r"attn2\.to_[kv]\.weight")
VIEWS = ("as_strided", "split", "slice", "select", "view", "alias", "unsqueeze", "t", "transpose", "detach")


class Operations(TorchDispatchMode):
    """Counts the operations that are dispatched inside the block, by name."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def launches(self) -> int:
        """The number of operations that compute or copy something, which views do not."""
        return sum(
            n for name, n in self.counts.items() if name.removesuffix("_copy") not in VIEWS and name != "view_as"
        )


@dataclass(frozen=True)
class StepCost:
    """The operations, seconds and bytes of one step."""

    tensors: int
    numbers: int
    operations: int
    launches: int
    """Operations that are no views."""
    seconds: float


def count_step(kind: Any, params: Sequence[Tensor], grads: Sequence[Tensor]) -> StepCost:
    """Measures the second step of an optimiser on these params; counting and timing are separate runs."""
    adam = kind(params, 1e-3)
    began = perf_counter()
    adam.step(grads)
    seconds = perf_counter() - began
    with Operations() as seen:
        adam.step(grads)
    return StepCost(len(params), sum(p.numel() for p in params), seen.counts.total(), seen.launches, seconds)


@dataclass(frozen=True)
class Optimiser:
    """Count the operations of a step of Adam with moments of 8 bits."""

    weights: Literal["xattn", "full"] = "xattn"
    """Which tensors learn: the keys and values of cross-attention, or all."""
    shrink: int = 1
    """Each tensor's first axis is so many times shorter."""
    out: Path = Path("out/benchmarks")

    def run(self) -> None:
        torch.set_num_threads(1)
        shapes, found = self.list_shapes(), {}
        for kind in (Adam8bitByTensor, Adam8bit):
            rng = torch.Generator().manual_seed(0)
            params = [torch.randn(shape, generator=rng).requires_grad_() for shape in shapes]
            grads = [torch.randn(shape, generator=rng) for shape in shapes]
            cost = count_step(kind, params, grads)
            found[kind.__name__] = asdict(cost)
            print(f"{kind.__name__}: {cost}", flush=True)
        write(
            self.out,
            "optimiser",
            {"stamp": describe_machine(), "weights": self.weights, "shrink": self.shrink, "steps": found},
        )

    def list_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of SD 1.5's tensors, made smaller."""
        unet = build_pipeline("sd", 512, "cpu", torch.float32, torch.device("meta")).unet
        wanted = [p for name, p in unet.named_parameters() if self.weights == "full" or KEYS_AND_VALUES.search(name)]
        return [(max(1, p.shape[0] // self.shrink), *p.shape[1:]) for p in wanted]


if __name__ == "__main__":
    tyro.cli(Optimiser).run()
