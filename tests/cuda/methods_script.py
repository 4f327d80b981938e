"""Run on the stand-in device: the shortest fit of each method there; prints JSON, by method.

What each gives is compared with fp32 on the CPU, and with how far rounding may move it, which is simulated there.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from typing import Any

import torch
from tiny_pair import DTYPES, count_waits

from monte_carlo import measure_distance, simulate
from precise_results import HALF, begin, fit, list_networks, open_at
from tiny_fits import build_quick, build_request, list_served

STEPS = {"fp32": 3, "fp16": 2, "bf16": 2}
IN_HALF = ("esd", "eap", "salun", "erasediff", "spm", "mace")
"""Methods whose whole fit is made in half precision too: one of each kind of update, balance and search."""


def compare(name: str, models: dict[str, Any]) -> dict[str, Any]:
    """How far the method's result on the device is from the CPU's in fp32, by dtype, and what a rounded CPU gives."""
    more = {"source": "student"} if name == "esd student" else {}
    short = name.split()[0]
    here = models["cpu"]
    right = fit(short, here, **more)
    found = {dtype: measure_distance(fit(short, models[dtype], **more), right) for dtype in DTYPES}
    return {"far": found, "simulated": simulate(lambda: fit(short, here, **more), right, list_networks(here), HALF)}


def train(name: str, model: Any, steps: int) -> dict[str, Any]:
    """A whole fit: whether its values are finite, the waits of each update, and where they are."""
    more = {"source": "student"} if name == "esd student" else {}
    begin(model)
    method = build_quick(name.split()[0], model, steps=steps, **more)
    edit, waits, sites = count_waits(lambda mark: method.fit(model, build_request(name.split()[0]), progress=mark))
    finite = all(bool(v.cpu().isfinite().all()) for v in edit.values.values() if v.is_floating_point())
    return {
        "finite": finite,
        "waits": waits,
        "sites": dict(list(sites.items())[:20]),
        "skipped": edit.meta.get("notes", {}).get("skipped_steps"),
    }


def main(*asked: str) -> None:
    """All methods or those named; with `--waits` a fit in fp32 alone is made."""
    torch.set_num_threads(1)
    names, whole = [name for name in asked if name != "--waits"], "--waits" not in asked
    models = {dtype: open_at(cast, "cuda") for dtype, cast in DTYPES.items()} | {"cpu": open_at(torch.float32)}
    found: dict[str, Any] = {}
    for name in names or [*list_served("sd"), "esd student"]:
        began = time.process_time()
        try:
            changes = whole and name not in ("negative", "safree", "sld")  # these change no weight
            found[name] = compare(name, models) if changes else {}
            found[name] |= {
                dtype: train(name, models[dtype], steps) for dtype, steps in STEPS.items() if whole or dtype == "fp32"
            }
        except Exception:
            found[name] = {"error": traceback.format_exc()[-1500:]}
        found[name]["seconds"] = round(time.process_time() - began, 1)
    print(json.dumps(found))


main(*sys.argv[1:])
