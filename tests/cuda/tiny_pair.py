"""The same tiny model on the stand-in device and on the CPU, in one dtype; run on the stand-in device."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

import efface
from efface.models.base import Model
from fake_cuda import counting
from tiny import WORDS, small_pipeline

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def open_pair(dtype: str) -> dict[str, Model]:
    """A tiny model by device; both have the same weights and vocabulary."""
    torch.set_num_threads(1)
    whole = small_pipeline().to(dtype=DTYPES[dtype])
    pair = {device: efface.load(copy.deepcopy(whole), device) for device in ("cpu", "cuda")}
    for model in pair.values():
        model.own_words = WORDS  # type: ignore[attr-defined]
        model.fingerprint()
    return pair


def count_waits(work: Callable[[Callable[..., None]], Any]) -> tuple[Any, list[int], dict[str, int]]:
    """What some work gives; how often the host waited between its steps; and at which lines it waited.

    The work is given a function to call as progress is told; what it tells of drawing before a step is no step.
    """
    marks: list[int] = []
    counting.SYNCS.clear()
    counting.COUNT["on"] = True
    try:
        made = work(lambda *_, drawn=None, **__: None if drawn else marks.append(counting.waits()))
    finally:
        counting.COUNT["on"] = False
    sites = {f"{kind} {site}": n for (kind, site), n in counting.SYNCS.most_common()}
    return made, [after - before for before, after in pairwise(marks)], sites
