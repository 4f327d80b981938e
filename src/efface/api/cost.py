"""What an erasure took: its time, and the memory that it held."""

from __future__ import annotations

import glob
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models.base import Model


def was_begun(checkpoint: str | Path | None) -> bool:
    """Whether an earlier run left its state in this file, or those of its stages beside it."""
    file = Path(checkpoint or "")
    return bool(checkpoint) and (file.exists() or any(file.parent.glob(f"{glob.escape(file.name)}.*")))


def measure_cost(model: Model, began: float, resumed: bool) -> dict[str, float]:
    """The seconds since `began`, and the most memory held until now, if it is known: on a GPU the GPU's."""
    spent = {"seconds_since_resumed" if resumed else "seconds": round(time.monotonic() - began, 3)}
    if model.device.type == "cuda":
        import torch

        return {**spent, "peak_memory_mb": round(torch.cuda.max_memory_allocated(model.device) / 2**20)}
    from ..planning.machine import read_resident_peak

    peak = read_resident_peak()
    return spent if peak is None else {**spent, "peak_memory_mb": round(peak / 2**20)}
