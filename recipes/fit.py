"""One erasure in a process of its own, so that its memory can be told: used by `recipes.run`."""

import json
import sys
import time
from pathlib import Path

import torch

import efface
from efface import methods
from efface.concept import Erasure
from efface.evaluate import write_whole


def resident_peak() -> float | None:
    """Peak resident memory of this process in MB; getrusage would count the parent's from before the start."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = [row for row in status.read_text().splitlines() if row.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def main(model_name: str, method: str, request: str, folder: str, threads: str, settings: str = "{}") -> None:
    """Writes edit.safetensors and fitted.json (seconds, peak and idle resident memory in MB) to `folder`."""
    torch.set_num_threads(int(threads))
    model, where = efface.load(model_name), Path(folder)
    model.fingerprint()
    idle, start = resident_peak(), time.perf_counter()
    asked = json.loads(request)
    edit = methods.configured(method, model, json.loads(settings)).fit(
        model, Erasure(tuple(asked["targets"]), asked["anchor"])
    )
    seconds = time.perf_counter() - start
    edit.save(where / "edit.safetensors")
    told = {"seconds": seconds, "peak_mb": resident_peak(), "idle_mb": idle, "threads": torch.get_num_threads()}
    write_whole(where / "fitted.json", json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
