"""`efface export`: an edited model as other tools load it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from .console import result


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write an edited model as a folder or a single file that other tools load."""

    example: ClassVar[str] = "efface export --model glyphs --edit cat.safetensors --out out/glyphs-without-cat"
    model: str
    """The base that the edit was made for."""
    edit: Path
    """The edit to apply."""
    out: Path
    """Folder to write, or file that ends in .safetensors; it must not exist yet."""
    format: Literal["diffusers", "single-file"] = "diffusers"
    """A diffusers folder; or one file in the original layout of Stable Diffusion 1.x, 2.x and XL, as most interfaces
    for drawing load it, with the edit's record in its header."""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision of the weights written."""
    strength: float = 1.0
    """How much of the edit is applied."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..api.publishing import export

        single = self.format == "single-file"
        export(self.model, self.edit, self.out, format=self.format, dtype=self.dtype, strength=self.strength)
        data = {"file" if single else "folder": str(self.out), "format": self.format, "dtype": self.dtype}
        result(data, self.json, str(self.out))
