"""Run on the stand-in device: the shortest fit of each method there and on the CPU; prints JSON, by method."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

import torch
from tiny_pair import count_waits, open_pair
from torch import Tensor

from efface.edits.edit import Edit
from tiny_fits import quick, request, served

STEPS = {"fp32": 3, "fp16": 2, "bf16": 2}


def distance(one: Edit, other: Edit, base: Mapping[str, Tensor]) -> float:
    """How far apart two edits are, as a share of what they moved; over all their values together."""
    apart, moved = 0.0, 1e-20
    for key, value in one.values.items():
        ours, theirs = value.double(), other.values[key].cpu().double()
        apart += float((ours - theirs).square().sum())
        moved += float((ours - base[key].double() if key in base else ours).square().sum())
    return (apart / moved) ** 0.5


def compare(name: str, pair: dict[str, Any], steps: int) -> dict[str, Any]:
    more = {"source": "student"} if name == "esd student" else {}
    name = name.split()[0]

    def fit(device: str, mark: Any = None) -> Edit:
        torch.manual_seed(0)
        return quick(name, pair[device], steps=steps, **more).fit(pair[device], request(name), progress=mark)

    there, waits, sites = count_waits(lambda mark: fit("cuda", mark))
    here = fit("cpu")
    finite = all(bool(v.cpu().isfinite().all()) for v in there.values.values() if v.is_floating_point())
    same_names = there.values.keys() == here.values.keys()
    return {
        "far": distance(here, there, pair["cpu"].weights) if same_names else 1.0,
        "finite": finite,
        "waits": waits,
        "sites": dict(list(sites.items())[:20]),
        "skipped": there.meta.get("notes", {}).get("skipped_steps"),
    }


def main(dtype: str, *names: str) -> None:
    pair, found = open_pair(dtype), {}
    for name in names or [*served("sd"), "esd student"]:
        began = time.process_time()
        try:
            found[name] = compare(name, pair, STEPS[dtype])
        except Exception:
            found[name] = {"error": traceback.format_exc()[-1500:]}
        found[name]["seconds"] = round(time.process_time() - began, 1)
    print(json.dumps(found))


main(*sys.argv[1:])
