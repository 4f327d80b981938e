"""`efface import`: read another tool's erasure as an edit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro

from .console import print_result


@dataclass(frozen=True)
class Import:
    """Read another tool's erasure in as an edit, to be judged, attacked, exported and recorded as any other.

    PATH is a file of weights by diffusers' or the original names (ESD, UCE), a LoRA of kohya, LECO, PEFT or ComfyUI,
    a diffusers folder of the fine-tuned model, or a whole model in one file.
    """

    example: ClassVar[str] = (
        "efface import cat-kohya.safetensors --model glyphs --target cat --method esd --out cat.safetensors"
    )
    source: tyro.conf.Positional[Path]
    """File or folder of the other tool."""
    model: str
    """The base that it was made from."""
    out: Path
    """The edit's file to write, which ends in .safetensors."""
    target: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """The concept that was erased; repeat the flag for several. Not needed for a file that efface exported."""
    anchor: str = ""
    """The concept that replaced the target, where that is known."""
    keep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A concept that was preserved, where that is known; repeat the flag for several."""
    method: str = "imported"
    """The method that made it, for the record."""
    pickle: bool = False
    """Open a .pt, .pth, .bin or .ckpt, with weights_only, which runs no code of the file's."""
    overwrite: bool = False
    """Replace the file if it exists."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..api.importing import import_edit

        check_out(self.out, self.overwrite)
        edit = import_edit(
            self.model,
            self.source,
            self.target,
            anchor=self.anchor,
            keep=self.keep,
            method=self.method,
            unpickle=self.pickle,
        )
        edit.save(self.out)
        data = {"edit": str(self.out), "weights": len(edit.names), **edit.meta["arguments"]}
        print_result(data, self.json, f"{self.out}\n{edit!r}, read as {data['read_as']}")


def check_out(out: Path, overwrite: bool) -> None:
    """Raises ValueError or OSError where an edit can't be written under this name, before any work."""
    from ..files import check_file

    if out.suffix != ".safetensors":
        raise ValueError(f"--out {out} must end in .safetensors")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists already; name another file, or add --overwrite")
    check_file(out)
