"""Run on the stand-in device: what is copied to take a model's fingerprint, and what lies on the device meanwhile."""

from __future__ import annotations

import json

import torch
from tiny_pair import open_pair

from efface.models import fingerprint
from fake_cuda import counting

PIECE = 1000


def main() -> None:
    pair = open_pair("fp16")
    for model in pair.values():
        model.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = pair["cuda"].weights
    fingerprint.PIECE = PIECE
    counting.COPIED.update(bytes=0, largest=0)
    counting.MEM["peak"] = before = counting.MEM["now"]
    counting.COUNT["on"] = True
    there = fingerprint.compute_digests(weights)
    counting.COUNT["on"] = False
    print(
        json.dumps(
            {
                "same": there == fingerprint.compute_digests(pair["cpu"].weights),
                "bytes": sum(weight.numel() * weight.element_size() for weight in weights.values()),
                "largest weight": max(weight.numel() * weight.element_size() for weight in weights.values()),
                "copied": counting.COPIED["bytes"],
                "largest copy": counting.COPIED["largest"],
                "piece": PIECE * 2,
                "beside the weights": counting.MEM["peak"] - before,
            }
        )
    )


main()
