"""`efface merge`, `efface revert` and `efface diff`: sums and differences of edits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import tyro

from ..plurals import write_count
from .console import print_result
from .importing import check_out

if TYPE_CHECKING:
    from ..interchange.difference import Difference


@dataclass(frozen=True)
class Merge:
    """Merge several edits of one base into one edit: base + the sum of strength times change."""

    example: ClassVar[str] = "efface merge cat.safetensors dog.safetensors --model glyphs --out both.safetensors"
    edits: tyro.conf.Positional[tuple[Path, ...]]
    """The edits' files, two or more."""
    model: str
    """The base of all edits."""
    out: Path
    """The edit's file to write, which ends in .safetensors."""
    strength: tyro.conf.UseAppendAction[tuple[float, ...]] = ()
    """Strength of each edit, one flag for each in their order; 1 by default."""
    overwrite: bool = False
    """Replace the file if it exists."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..api.combining import merge

        check_out(self.out, self.overwrite)
        edit = merge(self.model, self.edits, strengths=self.strength or None)
        edit.save(self.out)
        print_result({"edit": str(self.out), "weights": len(edit.names)}, self.json, f"{self.out}\n{edit!r}")


@dataclass(frozen=True)
class Revert:
    """Remove an edit from a model's folder that contains it, or from a merged edit. Every weight that equals the
    edit's result becomes the base's weight again, bit for bit; other changes of the model stay. The output says
    whether the whole result is the base.
    """

    example: ClassVar[str] = (
        "efface revert out/glyphs-without-cat --model glyphs --edit cat.safetensors --out out/glyphs-again"
    )
    edited: tyro.conf.Positional[str]
    """A model's folder (or hub id, or FILE.safetensors@FOLDER) that contains the edit, or the file of a merged edit."""
    model: str
    """The base that the edit was made for."""
    edit: Path
    """The edit to remove."""
    out: Path
    """Folder to write, or file that ends in .safetensors where an edit is reverted; it must not exist yet."""
    strength: float = 1.0
    """The strength with which the edit was applied."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..api.combining import revert

        done = revert(self.model, self.edited, self.edit, self.out, strength=self.strength)
        says = "is the base, bit for bit" if done["exact"] else "is not the base: something else was changed too"
        print_result(
            done,
            self.json,
            f"{self.out}: the edit was removed from {write_count(done['weights'], 'weight')}; the result {says}",
        )


@dataclass(frozen=True)
class Diff:
    """List the tensors that an edit or a fine-tuned model changes, by how much, and the paths of the text that it
    does not change."""

    example: ClassVar[str] = "efface diff cat.safetensors --model glyphs"
    edit: tyro.conf.Positional[str]
    """An edit's file, or a model."""
    model: str
    """The base."""
    other: str | None = None
    """An edit's file or a model to compare with; the base by default."""
    strength: float = 1.0
    """Strength of the edit; 1 applies it as it was fitted."""
    top: int = 10
    """Number of tensors that are listed, those that change most first; --json lists all."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..api.combining import diff

        if self.top < 0:
            raise ValueError(f"--top must be 0 or more, got {self.top}")
        found = diff(self.model, self.edit, self.other, strength=self.strength)
        paths = [{**asdict(path), "open": path.open} for path in found.paths]
        print_result({**asdict(found), "paths": paths}, self.json, format_table(found, self.top))


def format_table(found: Difference, top: int) -> str:
    """Writes the difference as text, with the `top` tensors that change most."""
    lines = [
        f"{len(found.tensors)} of {write_count(found.of, 'tensor')} differ, by {found.relative:.3%} of all weights' "
        "norm"
    ]
    if found.tensors and top:
        lines.append(f"{'change':>8}  {'numbers':>7}  {'rank':>4}  tensor")
    for each in found.tensors[:top]:
        rank = "" if each.rank is None else str(each.rank)
        lines.append(f"{each.relative:>8.2%}  {each.share:>7.1%}  {rank:>4}  {each.name}")
    if (more := len(found.tensors) - top) > 0:
        lines.append(f"… and {more} more")
    for path in found.paths:
        state = "OPEN, as it was" if path.open else f"{path.changed} of {write_count(path.of, 'weight')} changed"
        lines.append(f"text path {path.role}: {state} ({path.about})")
    return "\n".join(lines)
