"""The architectures by name, and groups of them; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

ARCHITECTURES: Mapping[str, str] = {
    "sd": "Stable Diffusion 1.x and 2.x",
    "sdxl": "Stable Diffusion XL",
    "pixart": "PixArt-alpha and PixArt-Sigma",
    "ddpm": "class-conditional DDPM",
    "sd3": "Stable Diffusion 3 and 3.5",
    "flux": "FLUX.1 dev and schnell",
    "sana": "SANA",
    "z-image": "Z-Image",
    "qwen-image": "Qwen-Image",
    "flux2": "FLUX.2 dev and Klein",
}
"""What each name stands for, in the order of tables."""
GROUPS: Mapping[str, tuple[str, ...]] = {"flow": ("sd3", "flux", "sana", "z-image", "qwen-image", "flux2")}
"""Architectures that a method may name together: those that are trained as flows."""

DISTILLED = ("flux", "z-image", "flux2")
"""Those of which a version is distilled to a few steps, and has no unconditional prediction."""
READ_GUIDANCE = ("flux", "flux2")
"""Those of which a version reads its guidance as a number."""


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """The architectures that are named, each alone or with its group."""
    return tuple(dict.fromkeys(each for name in names for each in GROUPS.get(name, (name,))))
