"""The formats of an export by name, and the readers of each by architecture; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from ..models.architectures import ARCHITECTURES

Format = Literal["diffusers", "single-file", "lora", "kohya", "comfy"]
LoraFormat = Literal["lora", "kohya", "comfy"]
FORMATS: tuple[Format, ...] = get_args(Format)
LORA_FORMATS: tuple[LoraFormat, ...] = get_args(LoraFormat)
WHOLE = ("diffusers", "single-file")
"""The formats that hold the whole model at the edit's strength; the others hold the edit alone."""
Reader = Literal["from_pretrained", "from_single_file", "load_lora_weights", "efface import"]
"""diffusers' own loaders, or efface's reader where diffusers has none."""
BY_LORA = ("sd", "sdxl", "sd3", "flux", "sana", "z-image", "qwen-image", "flux2")

READERS: Mapping[Format, Mapping[str, Reader]] = {
    "diffusers": dict.fromkeys(ARCHITECTURES, "from_pretrained"),
    "single-file": dict.fromkeys(("sd", "sdxl", "sd3", "flux"), "from_single_file"),
    "lora": dict.fromkeys(BY_LORA, "load_lora_weights"),
    "kohya": {
        **dict.fromkeys(("sd", "sdxl", "flux", "z-image", "qwen-image", "flux2"), "load_lora_weights"),
        "sd3": "efface import",
    },
    "comfy": {**dict.fromkeys(("sd", "sdxl"), "load_lora_weights"), **dict.fromkeys(("sd3", "flux"), "efface import")},
}
"""The readers of a file, by format and architecture; an architecture that is not named has no such file.

`efface import` reads a `comfy` file with exact differences on every architecture. From FLUX.1's `comfy` files diffusers
leaves out parts that ComfyUI reads.
"""


def check_architecture(format: Format, architecture: str) -> None:
    """Raises ValueError where this format has no files for this architecture; the message says which formats have."""
    if architecture in READERS[format]:
        return
    others, fits = [other for other in FORMATS if architecture in READERS[other]], ", ".join(READERS[format])
    why = ""
    if architecture in BY_LORA:
        why = "; ComfyUI reads the `lora` file of it" if format == "comfy" else ""
        why = "; diffusers converts no such file of it" if format == "kohya" else why
    raise ValueError(
        f"--format {format} can't hold a model of the kind {architecture}, only {fits}{why}; --format "
        f"{' or '.join(others)} would have worked"
    )


def suggest_others(format: Format, architecture: str) -> str:
    """Writes the flag with the other formats that may hold what this one can't, of those that the architecture has.

    Example:
        >>> suggest_others("kohya", "flux"), suggest_others("kohya", "flux2")
        ('--format lora, comfy or diffusers', '--format lora or diffusers')
    """
    others = [other for other in (*LORA_FORMATS, "diffusers") if other != format and architecture in READERS[other]]
    return f"--format {' or '.join(filter(None, [', '.join(others[:-1]), others[-1]]))}"


def find_exact(architecture: str) -> Format:
    """The smallest format that holds every change exactly: `comfy` where the architecture has it, else `diffusers`."""
    return "comfy" if architecture in READERS["comfy"] else "diffusers"
