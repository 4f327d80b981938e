"""Finds a named thing in pictures, by a CLIPSeg or by a function of the user's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..files.hub import has_answer

Segmenter = Callable[[Tensor, str], Tensor]
"""Takes uint8 pictures [n, 3, h, w] and a thing's name; gives each pixel's probability to show it, [n, h, w]."""


def open_segmenter(name: str, device: torch.device) -> Segmenter:
    """Opens a segmenter: `module:function`, which is imported, or the folder or hub id of a CLIPSeg.

    Grounded-SAM or any other segmenter can be given as a function, which is called as `Segmenter` says. CLIPSeg
    (Lüddecke and Ecker, CVPR 2022, arXiv 2112.10003) is one network that reads the picture and the name.

    Raises:
        ValueError: there is no segmenter of that name.
    """
    module, colon, function = name.partition(":")
    if not colon:
        return _open_clipseg(name, device)
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"no segmenter {name!r} ({error}); give module:function that Python can import, or a CLIPSeg's folder or "
            "hub id, such as CIDAS/clipseg-rd64-refined"
        ) from error
    if not callable(found):
        raise ValueError(f"segmenter {name!r} is a {type(found).__name__}, not a function of pictures and a name")
    return cast(Segmenter, found)


def measure_shares(found: Segmenter, pictures: Tensor, thing: str) -> Tensor:
    """Calls a segmenter on uint8 pictures [n, 3, h, w], and checks its output: fp32 [n, h, w] on the CPU.

    Raises:
        ValueError: it returned another shape, or numbers outside [0, 1].
    """
    with torch.no_grad():
        said = torch.as_tensor(found(pictures, thing)).detach().float().cpu()
    if said.shape != (len(pictures), *pictures.shape[2:]):
        raise ValueError(
            f"a segmenter gives one number for each pixel, {(len(pictures), *pictures.shape[2:])}; this one gave "
            f"{tuple(said.shape)}"
        )
    if not ((said >= 0) & (said <= 1)).all():
        low, high = said.min().item(), said.max().item()
        raise ValueError(f"a segmenter gives shares from 0 to 1, or True and False; this one gave {low:g} to {high:g}")
    return said


def _open_clipseg(name: str, device: torch.device) -> Segmenter:
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPSegForImageSegmentation

    alone = not Path(name).is_dir() and not has_answer()  # its client would retry each file for half a minute
    how: dict[str, Any] = {"trust_remote_code": False, "local_files_only": alone}
    try:
        kind = AutoConfig.from_pretrained(name, **how).model_type
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no segmenter {name!r}; give a CLIPSeg's folder or hub id, or module:function that Python can import"
        ) from error
    if kind != "clipseg":
        raise ValueError(f"{name} holds a {kind}; a CLIPSeg (model_type clipseg) segments by a name")
    network: Any = CLIPSegForImageSegmentation.from_pretrained(name, **how).eval()
    network.to(device)
    tokenizer = AutoTokenizer.from_pretrained(name, **how)
    processor = AutoImageProcessor.from_pretrained(name, **how)

    def segment(pictures: Tensor, thing: str) -> Tensor:
        words = tokenizer([thing] * len(pictures), padding=True, truncation=True, return_tensors="pt")
        pixels = processor(images=list(pictures), return_tensors="pt")
        said = network(**words.to(device), **pixels.to(device)).logits.float().sigmoid()
        return torch.nn.functional.interpolate(said[:, None], pictures.shape[2:], mode="bilinear")[:, 0]

    return segment
