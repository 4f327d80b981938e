"""Run on the stand-in device: which pipelines open there, in which dtype by default, and what `deterministic` sets."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any
from unittest import mock

import torch
from tiny_pair import DTYPES

import efface
from benchmarks.sizes import small_pipeline
from efface.concept import Erasure
from efface.methods.esd import ESD
from tiny import small_pipeline as tiny_pipeline

NEWER, OLDER = (8, 0), (7, 5)


def open_from_memory() -> dict[str, str]:
    """Where each pipeline's network lies, by its size and dtype; or why it was refused."""
    found = {}
    for size in ("sd", "sdxl"):
        for name, dtype in DTYPES.items():
            try:
                model = efface.load(small_pipeline(size, dtype), "cuda")
                found[f"{size} {name}"] = f"{model.device} {str(model.dtype).removeprefix('torch.')}"
            except ValueError as error:
                found[f"{size} {name}"] = str(error)
    return found


def open_by_default(folder: str, device: str) -> dict[str, Any]:
    """The dtypes of a model from files and of what is trained of it, where the first GPU alone computes in bf16."""
    capabilities = {"cuda": NEWER, "cuda:0": NEWER if device == "cuda" else OLDER}
    with mock.patch.object(torch.cuda, "get_device_capability", lambda asked: capabilities[str(asked)]):
        model = efface.load(folder, device)
    trainer = ESD(steps=1, draw_steps=2).build_trainer(model, Erasure(("cat",)))
    learning = {str(tensor.dtype) for tensor in trainer.update.list_optimised()}
    return {"weights": str(model.dtype), "learning": sorted(learning)}


def read_settings() -> dict[str, Any]:
    return {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


def main() -> None:
    torch.backends.cudnn.benchmark = True
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    opened = open_from_memory()
    plain = read_settings()
    with tempfile.TemporaryDirectory() as folder:
        tiny_pipeline().save_pretrained(folder)
        defaults = {device: open_by_default(folder, device) for device in ("cuda", "cuda:0")}
    efface.load(small_pipeline("sd", torch.float32), "cuda", deterministic=True)
    print(json.dumps({"opened": opened, "plain": plain, "defaults": defaults, "deterministic": read_settings()}))


main()
