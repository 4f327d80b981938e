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
"""The description of each architecture, in the order in which tables list them."""
GROUPS: Mapping[str, tuple[str, ...]] = {"flow": ("sd3", "flux", "sana", "z-image", "qwen-image", "flux2")}
"""The architectures that are trained as flows; a method can name the group."""

DISTILLED = ("flux", "z-image", "flux2")
"""The architectures with a version that is distilled to a few steps and has no unconditional prediction."""
READ_GUIDANCE = ("flux", "flux2")
"""The architectures with a version that reads its guidance scale as an input."""


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Replaces the names of groups by the architectures in them."""
    return tuple(dict.fromkeys(each for name in names for each in GROUPS.get(name, (name,))))
