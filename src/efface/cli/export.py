"""`efface export`: an edited model as other tools load it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .console import result


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write an edited model as a folder or a single file that other tools load."""

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
        single = self.format == "single-file"
        if self.out.exists():
            raise FileExistsError(f"{self.out} exists already; name a {'file' if single else 'folder'} that does not")
        if single != (self.out.suffix == ".safetensors"):
            wants = "a file that ends in .safetensors" if single else "a folder, or --format single-file"
            raise ValueError(f"--out {self.out} does not suit --format {self.format}; name {wants}")
        from .. import load
        from ..edits.edit import Edit
        from ..files import check_writable
        from ..models.adapters import single_file

        check_writable(self.out)
        edit = Edit.load(self.edit)
        edit.check_exportable()
        model = load(self.model, "cpu", self.dtype)
        with edit.apply(model, self.strength):
            if single:
                record = {"model": model.name, "strength": self.strength, "edit": dict(edit.meta)}
                single_file.save(model, self.out, record)
            else:
                model.save_pretrained(self.out)
        data = {"file" if single else "folder": str(self.out), "format": self.format, "dtype": self.dtype}
        result(data, self.json, str(self.out))
