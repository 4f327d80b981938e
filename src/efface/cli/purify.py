"""`efface purify`: draw an existing picture again without the concept that an edit erases."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from .console import print_result, show_progress
from .loading import Loading


@dataclass(frozen=True, kw_only=True)
class Purify:
    """Take pictures back to noise and draw them again under an edit, which leaves out what it erased.

    This follows All but One (Hong et al., AAAI 2024): the paper says that it works by DDIM inversion, and the settings
    are our reconstruction. Three files are written for each picture: "before" is the picture as the model reads it;
    "base" is drawn again without the edit, and shows how much inversion and drawing change by themselves; "after" is
    drawn again with the edit.
    """

    example: ClassVar[str] = (
        'efface purify --model glyphs --edit cat.safetensors --image cat.png --prompt "a cat" --out out/purified'
    )
    model: str
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id."""
    edit: Path
    """The edit to apply."""
    image: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """A picture: required; repeat the flag for several. It is turned upright, laid on white where it is transparent,
    cut to a square about its middle, and scaled."""
    prompt: str
    """A prompt that describes the pictures, including what the edit removes; it is used for inversion and for
    drawing."""
    out: Path
    """Folder for the pictures and `purify.json`."""
    steps: int = 50
    """Number of DDIM steps, of the inversion and of drawing."""
    guidance: float = 2.0
    """Guidance of drawing; with high guidance the result resembles the picture less. The inversion has no guidance."""
    refine: int = 0
    """Further predictions in each step of the inversion, which make it more exact."""
    invert_with: Literal["base", "edit"] = "base"
    """Which model takes the picture to noise: the untouched base or the edited one."""
    strength: float = 1.0
    """Strength of the edit; 1 applies it as it was fitted."""
    overwrite: bool = False
    """Replace the results of another request in the folder of --out."""
    json: bool = False
    """Print the result as JSON."""
    loading: Loading = field(default_factory=Loading)

    def run(self) -> None:
        from ..api.purifying import purify

        with show_progress() as report:
            data = purify(
                self.loading.open_model_later(self.model),
                self.edit,
                self.image,
                self.prompt,
                self.out,
                steps=self.steps,
                guidance=self.guidance,
                refine=self.refine,
                invert_with=self.invert_with,
                strength=self.strength,
                overwrite=self.overwrite,
                progress=report,
            )
        lines = [
            f"{self.out / row['after']}  changed by {row['after_changed']:.1f} of 255, "
            f"{row['base_changed']:.1f} of them without the edit"
            for row in data["pictures"]
        ]
        print_result(data, self.json, "\n".join(lines))
