"""Readers of what models, sweeps and interrupted trainings leave on a disk.

For each its name, the file that is damaged, what writes a whole example into a folder, and what reads it.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import ResNetConfig

from efface.concept import Erasure
from efface.methods.esd import ESD
from efface.models.adapters import single_file
from efface.models.opening.claims import compare, read_claims
from efface.models.opening.stored import check_parts
from efface.scorers.classifier import Classifier
from efface.sweeps.cells import Cell, Store
from efface.training.trainer import Trainer
from tiny import tiny_model, tiny_pipeline

Example = tuple[str, str, Callable[[Path], Any], Callable[[Path], Any]]
SMALL = ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json")
CELL = Cell("evaluate", {"method": "esd"}, "esd-cat")


def make_folder(folder: Path) -> None:
    """A tiny pipeline, whose text encoder is cut into shards; written once and copied."""
    shutil.copytree(_find_saved().name, folder, dirs_exist_ok=True)


@functools.cache
def _find_saved() -> tempfile.TemporaryDirectory[str]:
    held = tempfile.TemporaryDirectory(prefix="fuzz-model-")
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(held.name)
    shutil.rmtree(Path(held.name) / "text_encoder")
    pipeline.text_encoder.save_pretrained(Path(held.name) / "text_encoder", max_shard_size="4KB")
    return held


def read_folder(folder: Path) -> None:
    check_parts(folder)


def make_single_file(folder: Path) -> None:
    """The names by which a checkpoint of Stable Diffusion is known, and what it says of itself."""
    names = (f"{single_file.UNET}x", f"{single_file.VAE}x", f"{single_file.SD}x", "v_pred")
    told = {"modelspec.prediction_type": "v", "modelspec.resolution": "16x16"}
    save_file({name: torch.zeros(1) for name in names}, folder / "m.safetensors", metadata=told)


def read_single_file(folder: Path) -> None:
    file = folder / "m.safetensors"
    single_file.find_kind(file)
    compare(file, read_claims(file), {"prediction_type": "v_prediction"}, 16, "the folder")


@functools.cache
def build_trainer() -> Trainer:
    method = ESD(steps=2, batch=1, paths=1, draw_steps=2, source="frozen", weights="xattn-strict")
    return method.build_trainer(tiny_model(), Erasure(("cat",)))


def make_cell(folder: Path) -> None:
    Store(folder).finish(CELL, {"seconds": 3, "edit": "x"}, {"wall": 1.0})


def read_cell(folder: Path) -> None:
    store = Store(folder)
    store.read_result(CELL), store.read_decided_by(CELL), store.read_cost(CELL)


def make_names(folder: Path) -> None:
    ResNetConfig(depths=[1], hidden_sizes=[4]).save_pretrained(folder)
    (folder / "names.txt").write_text("cat\ndog\n")


STORED: tuple[Example, ...] = (
    *((f"stored {file}", file, make_folder, read_folder) for file in SMALL),
    ("stored shards", "text_encoder/model.safetensors.index.json", make_folder, read_folder),
    ("stored weights", "vae/diffusion_pytorch_model.safetensors", make_folder, read_folder),
    ("single file", "m.safetensors", make_single_file, read_single_file),
    (
        "checkpoint",
        "c.safetensors",
        lambda folder: build_trainer().save_checkpoint(folder / "c.safetensors", 1),
        lambda folder: build_trainer()._resume(folder / "c.safetensors"),
    ),
    ("cell", f"cells/{CELL.id}.json", make_cell, read_cell),
    (
        "label names",
        "names.txt",
        make_names,
        lambda folder: Classifier(str(folder), names=str(folder / "names.txt")).list_labels(),
    ),
)
