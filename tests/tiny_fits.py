"""The shortest fit of every method, and the kinds of model to fit it on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

import efface
from efface import methods
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.methods.base import Method
from efface.models.base import Model
from efface.models.loading import list_bundled
from tiny import tiny_model
from tiny_ddpm import tiny_ddpm
from tiny_flux import tiny_flux
from tiny_language import tiny_flux2, tiny_qwen_image, tiny_sana, tiny_z_image
from tiny_pixart import tiny_pixart
from tiny_sd3 import tiny_sd3
from tiny_sdxl import tiny_sdxl

KINDS: dict[str, Callable[[], Model]] = {
    "sd": tiny_model,
    "sdxl": tiny_sdxl,
    "pixart": tiny_pixart,
    "ddpm": lambda: tiny_ddpm("v_prediction"),
}
"""How a model of each kind is made: three that predict noise, one that predicts v, and the embedded one where it is."""
if "glyphs" in list_bundled():
    KINDS["glyphs"] = lambda: efface.load("glyphs", "cpu", compute="own")

FLOWS: dict[str, Callable[[], Model]] = {
    "sd3": tiny_sd3,
    "flux": tiny_flux,
    "sana": tiny_sana,
    "z-image": tiny_z_image,
    "qwen-image": tiny_qwen_image,
    "flux2": tiny_flux2,
}
"""How a flow of each architecture is made."""

SHORT: dict[str, Any] = {"steps": 2, "batch": 2, "draw_steps": 2, "paths": 2, "lr": 1e-2, "warm_up": 0}
SHORT |= {"pictures": 2, "remain_words": 2, "looks": 1, "label": "dog", "sparsity": 0.05, "source": "frozen"}
SHORT |= {"attack_steps": 1, "rounds": 1, "retain_batch": 1, "retain_template": "{}", "contexts": ("{}",)}


def find_architecture(kind: str) -> str:
    return "sd" if kind == "glyphs" else kind


def list_served(kind: str) -> list[str]:
    """The methods that say they serve this kind of model."""
    return [
        name
        for name in methods.list_names()
        if find_architecture(kind) in methods.find_capabilities(name).architectures
    ]


def shorten_settings(name: str, **more: Any) -> dict[str, Any]:
    """Settings that finish at once, as far as the method has them."""
    # Compose refuses settings that its choices leave idle; as it comes, those of ESD.
    idle = getattr(methods.get(name)(), "idle", frozenset())
    known = {field.name for field in dataclasses.fields(methods.get(name))} - idle
    return {key: value for key, value in {**SHORT, **more}.items() if key in known}


def build_quick(name: str, model: Model | None = None, **more: Any) -> Method:
    # A model of classes has no cross-attention, which most methods train.
    whole = {"weights": "full"} if model is not None and model.architecture == "ddpm" else {}
    return methods.get(name)(**shorten_settings(name, **whole, **more))


def build_request(name: str) -> Erasure:
    """A cat, which becomes a dog where the method has a use for that."""
    return Erasure(("cat",), anchor="dog" if methods.get(name).uses_anchor else "")


def is_same(one: Edit, two: Edit) -> bool:
    """Whether two Edits hold the same, bit for bit."""
    equal = all(torch.equal(value, two.values[key]) for key, value in one.values.items() if key in two.values)
    return equal and one.values.keys() == two.values.keys() and one.meta.get("guide") == two.meta.get("guide")
