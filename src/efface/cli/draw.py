"""`efface draw`: pictures of prompts, with or without edits; shared among the processes that a launcher started."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from .console import print_result, show_progress
from .loading import Loading, Sampled


@dataclass(frozen=True, kw_only=True)
class DrawSampling(Sampled):
    """How pictures are drawn, and how much of each edit is applied."""

    strength: tyro.conf.UseAppendAction[tuple[float, ...]] = ()
    """Strength of the edits: one number for all, or one flag for each in their order; 1 by default."""
    sampler: Literal["own", "ddim", "dpm", "unipc"] = "own"
    """The model's own scheduler, or another one on the same noise levels; dpm and unipc need fewer steps."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Draw prompts, with any number of edits applied together."""

    kept: ClassVar[str] = "nothing was kept, because pictures are written when all are drawn"
    example: ClassVar[str] = (
        'efface draw --model glyphs --edit cat.safetensors --prompt "a cat" --prompt "a dog" --out out/drawn'
    )
    model: str
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id."""
    prompt: tyro.conf.UseAppendAction[tuple[str, ...]]
    """A prompt to draw: required; repeat the flag for several."""
    out: Path
    """Folder for the pictures and `draw.json`."""
    edit: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """An edit to apply; repeat the flag for several."""
    seed: int = 0
    """Seed of the first picture of each prompt; each further picture has the next seed."""
    count: int = 1
    """Number of pictures of each prompt."""
    overwrite: bool = False
    """Replace the results of another request in the folder of --out."""
    json: bool = False
    """Print the result as JSON."""
    drawing: DrawSampling = field(default_factory=DrawSampling)
    loading: Loading = field(default_factory=Loading)

    def run(self) -> None:
        from ..api.drawing import draw

        strength = self.drawing.strength[0] if len(self.drawing.strength) == 1 else self.drawing.strength or 1.0
        with show_progress() as report:
            drawn = draw(
                self.loading.open_model_later(self.model),
                self.prompt,
                self.out,
                edits=self.edit,
                seed=self.seed,
                count=self.count,
                overwrite=self.overwrite,
                device=self.loading.device,
                progress=report,
                **{**vars(self.drawing), "strength": strength},
            )
        if not drawn:  # another process tells
            return
        pictures = [{"prompt": prompt, "seed": seed, "file": file.name} for prompt, seed, file in drawn]
        data = {"model": self.model, "edits": [str(e) for e in self.edit], "strength": strength}
        print_result(
            {**data, "pictures": pictures}, self.json, "\n".join(f"{file}  {prompt}" for prompt, _, file in drawn)
        )
