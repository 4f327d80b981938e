"""One erasure in a process of its own, so that its memory can be told: used by `recipes.erasing`."""

import json
import sys
import time
from pathlib import Path

import torch

import efface
from efface import methods
from efface.concept import Erasure
from efface.files import write_whole
from efface.planning.machine import read_resident_peak


def main(model_name: str, method: str, request: str, folder: str, threads: str, settings: str = "{}") -> None:
    """Writes edit.safetensors and fitted.json (seconds, peak and idle resident memory in MB) to `folder`."""
    torch.set_num_threads(int(threads))
    model, where = efface.load(model_name), Path(folder)
    model.fingerprint()
    idle, start = read_resident_peak(), time.perf_counter()
    asked = json.loads(request)
    edit = methods.configured(method, model, json.loads(settings)).fit(
        model, Erasure(tuple(asked["targets"]), asked["anchor"])
    )
    seconds = time.perf_counter() - start
    edit.save(where / "edit.safetensors")
    held = {"peak_mb": read_resident_peak(), "idle_mb": idle}
    told = {"seconds": seconds, **{k: v and v / 2**20 for k, v in held.items()}, "threads": torch.get_num_threads()}
    write_whole(where / "fitted.json", json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
