"""Gives numbers to the outputs of text encoders that have shapes alone, so that conditions can be computed with.

A closed form solves equations of conditions, and a search moves embeddings along gradients, both before the memory of a
step is measured. Which numbers they are given changes no size. An encoder without numbers makes its pass on shapes,
which counts as many bytes as a real pass, and its outputs are then filled with random numbers, the same for the same
token embeddings. A pass on shapes takes the same time for any number of prompts, while a real pass of SDXL's encoders
in bf16 takes a CPU seconds for each prompt.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import _disable_current_modes


def give_numbers(encoder: Any) -> None:
    """Gives an encoder without numbers real token embeddings, and real outputs wherever no mode of shapes is on."""
    table = encoder.get_input_embeddings()
    with _disable_current_modes():
        table.weight = nn.Parameter(torch.empty(table.weight.shape, dtype=table.weight.dtype).normal_(std=0.02))

    def fill(_: nn.Module, args: tuple[Tensor, ...], out: Any) -> None:
        with unset_fake_temporarily() as shapes:
            pass
        if shapes is not None:
            return
        with _disable_current_modes():  # what counts bytes has counted those of the shapes
            given = table(args[0])
            first = next(iter(out))
            out[first] = _draw(given, out[first])
            if (states := out.get("hidden_states")) is not None:
                out["hidden_states"] = (*states[:-2], _draw(given, states[-2]), states[-1])

    encoder.register_forward_hook(fill)


def _draw(given: Tensor, like: Tensor) -> Tensor:
    """Numbers of the shape of `like` [n, ...], a row for each of the token embeddings [n, length, d], with a gradient
    to them."""
    rows = given.detach().float()
    seeds = [crc32(row.numpy().tobytes()) for row in rows.contiguous()]
    made = [torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    moved = (given - given.detach()).flatten(1).mean(dim=1)
    return torch.stack(made).to(like.dtype) + moved.view(-1, *[1] * (like.dim() - 1)).to(like.dtype)
