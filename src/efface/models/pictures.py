"""Turns a decoder's output into pictures, and reports output that is NaN or infinite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..plurals import write_count

Output = Literal["tensor", "np", "pil"]
"""The form of pictures: a tensor [n, 3, h, w], a NumPy array [n, h, w, 3], or a list of PIL images."""


class NoNumbers(ArithmeticError):
    """Some pictures came out as NaN or infinite numbers; the others are correct.

    Attributes:
        pictures: all pictures, uint8 [n, 3, h, w]; those with NaN or infinite numbers are black.
        lost: the indices of the black ones.
    """

    def __init__(self, pictures: Tensor, lost: Sequence[int]) -> None:
        Exception.__init__(
            self,
            f"{len(lost)} of {write_count(len(pictures), 'picture')} came out as NaN or infinite numbers: the "
            "network or the "
            "autoencoder overflowed, as happens in fp16, or the edit is too strong; draw with --dtype bf16 or fp32",
        )
        self.pictures, self.lost = pictures, tuple(lost)


def round_to_pictures(values: Tensor, scaled: Tensor) -> Tensor:
    """Rounds numbers to uint8 pictures [n, 3, h, w] on the CPU.

    Args:
        values: the decoder's output, [n, 3, h, w].
        scaled: the same numbers, scaled so that 0 is black and 1 is white.

    Raises:
        NoNumbers: some of the values are NaN or infinite.
    """
    whole = values.isfinite().flatten(1).all(dim=1).cpu()
    lost = (~whole).nonzero().flatten().tolist()
    if lost:
        scaled = scaled.clone()
        scaled[lost] = 0
    pictures = (scaled * 255).round().to(torch.uint8)
    if lost:
        raise NoNumbers(pictures, lost)
    return pictures


def decode_or_keep(decode: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor | NoNumbers:
    """The pictures [n, 3, h, w] of latents [n, ...], or the NoNumbers error that holds them: others can be drawn."""
    try:
        return decode(latents)
    except NoNumbers as error:
        return error


def join_pictures(drawn: Sequence[Tensor | NoNumbers]) -> Tensor:
    """Joins all batches to uint8 [n, 3, h, w]; raises NoNumbers, with indices among all, where a batch is one."""
    pictures, lost = [], []
    for batch in drawn:
        before = sum(map(len, pictures))
        lost += [before + i for i in batch.lost] if isinstance(batch, NoNumbers) else []
        pictures.append(batch.pictures if isinstance(batch, NoNumbers) else batch)
    if lost:
        raise NoNumbers(torch.cat(pictures), lost)
    return torch.cat(pictures)


def check_output(output: str) -> None:
    """Raises ValueError where `output` is no form of pictures."""
    if output not in get_args(Output):
        raise ValueError(f"output has to be one of {', '.join(map(repr, get_args(Output)))}; got {output!r}")


def convert_pictures(pictures: Tensor, output: Output) -> Tensor | np.ndarray | list[Image.Image]:
    """Converts uint8 pictures [n, 3, h, w] on the CPU to the form `output`; "tensor" returns them unchanged."""
    if output == "tensor":
        return pictures
    array = pictures.permute(0, 2, 3, 1).contiguous().numpy()
    return array if output == "np" else [Image.fromarray(picture) for picture in array]
