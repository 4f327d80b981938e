"""Run on the stand-in device: what is done with edits and files of other tools on a machine with a GPU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import efface
from efface.models.base import Model
from lora_fixtures import build_dense, build_low_rank
from tiny import tiny_model


def tell(action: Callable[[], Any]) -> str:
    """What the action returns, as a text; its error where it fails."""
    try:
        return str(action())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def work(base: str | Model, folder: Path) -> dict[str, str]:
    """What each function says, of a base that is named or in memory on the device."""
    plain = efface.load(str(folder / "base"), "cpu", "fp32")
    one, two = build_dense(plain, "attn2.to_k"), build_dense(plain, "attn2.to_k", "attn2.to_v")
    out = Path(tempfile.mkdtemp(dir=folder))
    efface.export(plain, one, out / "comfy.safetensors", format="comfy", pictures=0)
    one.export(plain, out / "edited")
    off = out / "off"
    return {
        "import": tell(lambda: len(efface.import_edit(base, out / "comfy.safetensors").names)),
        "import a folder": tell(lambda: len(efface.import_edit(base, out / "edited", "cat").names)),
        "merge": tell(lambda: len(efface.merge(base, [one, two]).names)),
        "revert": tell(lambda: efface.revert(base, str(out / "edited"), one, off)["exact"]),
        "diff": tell(lambda: len(efface.diff(base, str(out / "edited")).tensors)),
        "export": tell(
            lambda: efface.export(base, build_low_rank(plain, "attn2"), out / "x.safetensors", format="lora")
        ),
        "weights": str(len(one.names)),
        "weights of both": str(len(two.names)),
    }


with tempfile.TemporaryDirectory() as scratch:
    place = Path(scratch)
    tiny_model().save_pretrained(place / "base")
    named = work(str(place / "base"), place)
    there = efface.load(str(place / "base"), "cuda", "fp32")
    memory = work(there, place)
    print(json.dumps({"named": named, "memory": memory}))
