"""`efface export`: an edited model as other tools load it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .console import result


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write an edited model as a folder that other tools load."""

    model: str
    """The base that the edit was made for."""
    edit: Path
    """The edit to apply."""
    out: Path
    """Folder to write; it must not exist yet."""
    format: Literal["diffusers"] = "diffusers"
    """The layout of the folder."""
    strength: float = 1.0
    """How much of the edit is applied."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        if self.out.exists():
            raise FileExistsError(f"{self.out} exists already; name a folder that does not")
        from .. import load
        from ..game import Edit
        from ..store import check_writable

        check_writable(self.out)
        edit = Edit.load(self.edit)
        model = load(self.model, "cpu")
        with edit.apply(model, self.strength):
            model.save_pretrained(self.out)
        result({"folder": str(self.out), "format": self.format}, self.json, str(self.out))
