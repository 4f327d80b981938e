"""`efface purify`: a picture that exists, drawn again without what an edit erases."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro

from ..edits.strength import check_strength
from ..files import check_folder
from .console import progress, result
from .draw import json_text
from .loading import Loading

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from ..edits.edit import Edit
    from ..models.base import Model

KINDS = ("before", "base", "after")


@dataclass(frozen=True, kw_only=True)
class Purify:
    """Take pictures back to noise and draw them again under an edit, which leaves out what it erased.

    After All but One (Hong et al., AAAI 2024): the source says that it works by DDIM inversion, the settings are our
    reconstruction. Of each picture three are written: before, as the model reads it; base, drawn again without the
    edit, which shows what the way there and back costs by itself; after, drawn again with it.
    """

    example: ClassVar[str] = (
        'efface purify --model glyphs --edit cat.safetensors --image cat.png --prompt "a cat" --out out/purified'
    )
    model: str
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id."""
    edit: Path
    """The edit to draw under."""
    image: tyro.conf.UseAppendAction[tuple[Path, ...]]
    """A picture: required; repeat the flag for several. It is turned upright, laid on white where it is transparent,
    cut to a square about its middle, and scaled."""
    prompt: str
    """What the pictures show, of which the edit takes its part; both ways go by it."""
    out: Path
    """Folder for the pictures and `purify.json`."""
    steps: int = 50
    """DDIM steps each way."""
    guidance: float = 2.0
    """Guidance of drawing again; high ones leave the picture. The way to noise has none."""
    refine: int = 0
    """Further predictions a step on the way to noise, which make it more exact."""
    invert_with: Literal["base", "edit"] = "base"
    """Which model takes the picture to noise: the untouched base or the edited one."""
    strength: float = 1.0
    """How much of the edit is applied."""
    json: bool = False
    """Print the result as JSON."""
    loading: Loading = field(default_factory=Loading)

    def run(self) -> None:
        if self.steps < 1 or self.refine < 0 or self.guidance < 0:
            raise ValueError(
                f"--steps is at least 1, --refine and --guidance at least 0; got {self.steps}, {self.refine}, "
                f"{self.guidance:g}"
            )
        check_strength(self.strength)
        opened = opened_pictures(self.image)
        check_folder(self.out)
        from ..edits.edit import Edit
        from ..evaluation.images import encode_png
        from ..files import stack_pictures, write_whole

        edit = Edit.load(self.edit)
        model = self.loading.opened(self.model)
        edit.check(model)
        with progress() as on_progress:
            made = self._purify(model, edit, stack_pictures(opened, model.resolution), on_progress)
        rows = []
        for i, file in enumerate(self.image):
            row: dict[str, Any] = {"image": str(file)}
            for kind in KINDS:
                row[kind] = write_whole(self.out / f"{i:04d}-{kind}.png", encode_png(made[kind][i])).name
            change = {kind: float((made[kind][i].float() - made["before"][i].float()).abs().mean()) for kind in KINDS}
            rows.append(row | {"base_changed": change["base"], "after_changed": change["after"]})
        settings = ("steps", "guidance", "refine", "invert_with", "strength", "prompt")
        data = {"model": self.model, "edit": str(self.edit), **{name: getattr(self, name) for name in settings}}
        data |= {"unit": "mean absolute change of a pixel from before, of 255", "pictures": rows}
        write_whole(self.out / "purify.json", json_text(data))
        lines = [
            f"{self.out / row['after']}  changed by {row['after_changed']:.1f} of 255, "
            f"{row['base_changed']:.1f} of them without the edit"
            for row in rows
        ]
        result(data, self.json, "\n".join(lines))

    def _purify(self, model: Model, edit: Edit, before: Tensor, on_progress: Any) -> dict[str, Tensor]:
        """uint8 pictures [n, 3, h, w] by kind, a few at a time."""
        import torch

        from ..models.trajectory import choose_image_batch

        parts = before.split(choose_image_batch(model.resolution))
        done = [self._purify_some(model, edit, part) for part in _told(parts, on_progress)]
        return {"before": before} | {kind: torch.cat([some[kind] for some in done]) for kind in ("base", "after")}

    def _purify_some(self, model: Model, edit: Edit, before: Tensor) -> dict[str, Tensor]:
        from ..models.ddim_inversion import invert, redraw

        latents, made = model.latents(before), {}

        def noise_of() -> Tensor:
            cond, uncond = model.encode([self.prompt]), model.encode([""])
            return invert(model, latents, cond, uncond, steps=self.steps, refine=self.refine)

        def drawn_from(noise: Tensor) -> Tensor:
            cond, uncond = model.encode([self.prompt]), model.encode([""])
            return model.decode(redraw(model, noise, cond, uncond, steps=self.steps, guidance=self.guidance))

        noise = noise_of()
        made["base"] = drawn_from(noise)
        with edit.apply(model, self.strength):
            made["after"] = drawn_from(noise_of() if self.invert_with == "edit" else noise)
        return made


def opened_pictures(files: tuple[Path, ...]) -> list[Image]:
    """The pictures; asked before a model is loaded.

    Raises:
        ValueError: none is given, or one is no readable picture; names it.
        FileNotFoundError: there is no such file.
    """
    from ..files import open_picture

    if not files:
        raise ValueError("no picture: name at least one, for example --image photo.png")
    return [open_picture(file) for file in files]


def _told(parts: Any, on_progress: Any) -> Any:
    """The parts, with word of how many pictures are done."""
    done, total = 0, sum(len(part) for part in parts)
    for part in parts:
        yield part
        done += len(part)
        on_progress("purifying", done, total)
