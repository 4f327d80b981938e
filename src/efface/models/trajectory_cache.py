"""Keeps trajectories of the frozen model by a hash of all that they depend on, in memory and beyond a bound on disk.

With a folder, every recording is also written there, and later runs that ask for the same one read it. Steps are read
from a file one by one, so that a recording on disk is never loaded as a whole.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import final

import torch
from safetensors import safe_open
from torch import Tensor

from ..files import make_scratch, write_tensors
from .trajectory import Draw

COLUMNS = ("states", "eps_c", "eps_0")
MOST_NUMBERS, MOST_ROWS = 2**17, 32
BOUND = 2 << 30
"""The default number of bytes that are held in memory."""


class StoreFull(OSError):
    """A recording could not be written because its disk is full."""


def choose_draw_batch(latent_shape: Sequence[int]) -> int:
    """The default batch of trajectories: 32, or fewer for large latents (8 at 4 x 64 x 64, 2 at 4 x 128 x 128).

    It depends on the model alone, because the last bits of a picture depend on how many are drawn together.
    """
    return max(1, min(MOST_ROWS, MOST_NUMBERS // prod(latent_shape)))


def take_picture(draw: Draw, i: int) -> Draw:
    """The trajectory of the i-th picture."""
    one = slice(i, i + 1)
    return Draw(draw.x[one], draw.t, draw.states[:, one], draw.eps_c[:, one], draw.eps_0[:, one])


@dataclass(frozen=True)
class DiskEntry:
    """A recording that is on disk and no longer in memory."""

    file: Path

    def read_step(self, step: int) -> tuple[Tensor, ...]:
        with safe_open(self.file, framework="pt") as file:
            # Copied, because a slice would keep the whole file in memory.
            return (file.get_tensor("t")[step].clone(), *(file.get_slice(c)[step, 0].clone() for c in COLUMNS))


@final
class TrajectoryCache:
    """Trajectories on the CPU, by key; the least recently used one leaves memory first.

    Args:
        folder: a folder that keeps recordings for later runs; without one, recordings beyond the bound go to a
            temporary folder.
        bound: number of bytes that are held in memory.
    """

    def __init__(self, folder: str | Path | None = None, bound: int = BOUND) -> None:
        if bound < 0:
            raise ValueError(f"a bound is a number of bytes and not below 0, got {bound}")
        self.folder, self.bound, self.used = Path(folder) if folder else None, bound, 0
        self.held: OrderedDict[str, Draw] = OrderedDict()
        self.spilled: dict[str, DiskEntry] = {}
        self.temporary: Path | None = None

    def __contains__(self, key: str) -> bool:
        if key in self.held or key in self.spilled:
            return True
        if self.folder is None or not (file := self._locate(self.folder, key)).is_file():
            return False
        self.spilled[key] = DiskEntry(file)
        return True

    def put(self, key: str, draw: Draw) -> None:
        """Keeps the recording of one picture, unless there is one; a failed write leaves no file.

        Raises:
            StoreFull: the disk is full.
        """
        if key in self.held:
            return
        # Copied, because a slice would keep the whole batch in memory.
        kept = {name: torch.empty(t.shape, dtype=t.dtype).copy_(t) for name, t in vars(draw).items()}
        draw = Draw(**(kept | {name: _narrow(kept[name]) for name in ("eps_c", "eps_0")}))
        if self.folder is not None:
            self._write(self.folder, key, draw)
        self.held[key] = draw
        self.used += _count_bytes(draw)
        while self.used > self.bound:
            self._drop()

    def read_step(self, key: str, step: int) -> tuple[Tensor, ...]:
        """Timestep, state, eps_c and eps_0 at a step of a recorded picture, on the CPU; raises KeyError without one.

        eps_c and eps_0 are in bf16 where that is exact.
        """
        if key in self.held:
            self.held.move_to_end(key)
            draw = self.held[key]
            return (draw.t[step], *(getattr(draw, name)[step, 0] for name in COLUMNS))
        return self.spilled[key].read_step(step)

    def evict(self, key: str) -> None:
        """Removes a recording from memory and from the temporary folder; files in the given folder stay."""
        if key in self.held:
            self.used -= _count_bytes(self.held.pop(key))
        if self.folder is None and (spilled := self.spilled.pop(key, None)):
            spilled.file.unlink(missing_ok=True)

    def _drop(self) -> None:
        key, draw = self.held.popitem(last=False)
        self.used -= _count_bytes(draw)
        if key not in self.spilled:
            if self.temporary is None:
                self.temporary = make_scratch(Path(tempfile.gettempdir()) / "recordings")
                weakref.finalize(self, shutil.rmtree, self.temporary, ignore_errors=True)
            self._write(self.temporary, key, draw)

    def _write(self, folder: Path, key: str, draw: Draw) -> None:
        file = self._locate(folder, key)
        try:
            if not file.is_file():
                write_tensors(file, vars(draw), {"kind": "recording"})
        except OSError as error:
            free = shutil.disk_usage(folder).free if folder.is_dir() else 0
            raise StoreFull(
                errno.ENOSPC,
                f"cannot keep {_count_bytes(draw) / 1e6:.1f} MB in {folder}, which has {free / 1e6:.1f} MB free "
                f"({error}); make room, or name another folder with --store; a run with --checkpoint goes on from "
                "where it stopped",
            ) from error
        self.spilled[key] = DiskEntry(file)

    @staticmethod
    def _locate(folder: Path, key: str) -> Path:
        return folder / f"{key}.safetensors"


def _narrow(predictions: Tensor) -> Tensor:
    """Casts predictions to bf16 where that is exact, as it is for a network that computes in bf16."""
    half = predictions.to(torch.bfloat16)
    same = all(torch.equal(h.to(p.dtype), p) for h, p in zip(half, predictions, strict=True))  # step by step
    return half if same else predictions


def _count_bytes(draw: Draw) -> int:
    return sum(tensor.nbytes for tensor in vars(draw).values())
