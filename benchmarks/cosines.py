"""Compares the gradient that passes through fp16 with that of fp32, with and without the factor before the loss.

    python -m benchmarks.cosines

The loss is the mean squared error of a prediction of 4 x 64 x 64 numbers, as that of Stable Diffusion at 512 pixels, so
that the gradient of each number of the prediction is as small as there. The network is a UNet2DConditionModel of few
channels with random weights, because a CPU computes convolutions in fp16 slowly. Both networks have the same weights,
which are numbers of fp16. Errors are small late in a training; without a factor, small gradients become zero in fp16.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from diffusers import UNet2DConditionModel
from torch import Tensor

from efface.training.loss_scale import compute_gradients

from .common import describe_flags, describe_machine, format_table, write

WORD_WIDTH = 16
"""Numbers in the embedding of a token."""


@dataclass(frozen=True)
class Comparison:
    """How a gradient of all weights differs from the right one."""

    cosine: float
    """Of both, each as one vector."""
    lost_numbers: float
    """Share of the numbers that are 0, and are not in the right one."""
    lost_tensors: int
    """Tensors that are all 0, and are not in the right one."""
    tensors: int
    """Tensors that are not all 0 in the right one."""


@dataclass(frozen=True, kw_only=True)
class Cosines:
    """Measures the cosine of fp16's gradient with fp32's, for each error and each factor."""

    errors: tuple[float, ...] = (0.1, 0.01)
    """Root mean squares of the error of a prediction."""
    factors: tuple[float, ...] = (1.0, 4096.0)
    """Factors by which the loss is multiplied before it is differentiated; a training in fp16 begins with 4096."""
    side: int = 64
    """Side of the latents."""
    networks: int = 3
    """Random networks, over which the rows are taken."""
    channels: int = 8
    """Channels of the network's first level; its second has twice as many."""
    out: Path = Path("out/benchmarks/cosines")
    """Folder of the result."""

    def run(self) -> None:
        rows = self.measure()
        print(format_table(list(rows[0]), [list(row.values()) for row in rows]))
        flags = describe_flags(self)
        write(self.out, "cosines", {"stamp": describe_machine(flags=flags), "rows": rows})

    def measure(self) -> list[dict[str, float]]:
        """Measures a row for each error and factor, over all networks: the least and the largest cosine, the largest
        share of numbers and the most whole tensors that fp16 alone makes 0, and the tensors that are compared."""
        found: dict[tuple[float, float], list[Comparison]] = {}
        for seed in range(self.networks):
            half = build_unet(self.side, self.channels, seed).half()
            full = copy.deepcopy(half).float()
            for error in self.errors:
                right = self.differentiate(full, error, 1.0)
                for factor in self.factors:
                    compared = compare(self.differentiate(half, error, factor), right)
                    found.setdefault((error, factor), []).append(compared)
        return [
            {
                "rms error": error,
                "factor": factor,
                "least cosine": min(each.cosine for each in some),
                "largest cosine": max(each.cosine for each in some),
                "numbers lost, %": max(100 * each.lost_numbers for each in some),
                "tensors lost": max(each.lost_tensors for each in some),
                "tensors": some[0].tensors,
            }
            for (error, factor), some in found.items()
        ]

    def differentiate(self, unet: Any, error: float, factor: float) -> list[Tensor]:
        """The gradient of every weight, each in its shape, where the error of the prediction [1, 4, side, side] is
        random with this root mean square."""
        rng = torch.Generator().manual_seed(0)
        x, off = (torch.randn(1, 4, self.side, self.side, generator=rng) for _ in range(2))
        words = torch.randn(1, 77, WORD_WIDTH, generator=rng)
        given = unet(x.to(unet.dtype), 500, encoder_hidden_states=words.to(unet.dtype), return_dict=False)[0].float()
        wanted = given.detach() + error * off / off.square().mean().sqrt()
        return list(compute_gradients(list(unet.parameters()), (given - wanted).square().mean(), factor))


def build_unet(side: int, channels: int, seed: int = 0) -> Any:
    """A network of two levels of these and twice as many channels, with attention in the lower level."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=side,
        block_out_channels=(channels, 2 * channels),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WORD_WIDTH,
        attention_head_dim=2,
    )


def compare(found: list[Tensor], right: list[Tensor]) -> Comparison:
    """Compares two lists of tensors of the same shapes; those that are 0 in `right` are left out."""
    pairs = [(one.double(), two.double()) for one, two in zip(found, right, strict=True) if bool(two.any())]
    one, two = (torch.cat([each.flatten() for each in side]) for side in zip(*pairs, strict=True))
    return Comparison(
        cosine=torch.cosine_similarity(one, two, dim=0).item(),
        lost_numbers=((one == 0) & (two != 0)).double().mean().item(),
        lost_tensors=sum(not bool(each.any()) for each, _ in pairs),
        tensors=len(pairs),
    )


if __name__ == "__main__":
    tyro.cli(Cosines).run()
