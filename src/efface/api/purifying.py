"""`efface.purify`: draws given pictures again without what an edit erases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..concept import check_choice
from ..edits.strength import check_strength
from ..files import check_folder
from .case import to_tuple
from .memory import with_memory_advice
from .progress import Progress, show_progress
from .resources import LazyModel, open_later

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..edits.edit import Edit
    from ..models.base import Model

Inverter = Literal["base", "edit"]
KINDS = ("before", "base", "after")


@with_memory_advice
def purify(
    model: Model | LazyModel | str | Path,
    edit: Edit | str | Path,
    images: str | Path | Sequence[str | Path],
    prompt: str,
    out: str | Path,
    *,
    steps: int = 50,
    guidance: float = 2.0,
    refine: int = 0,
    invert_with: Inverter = "base",
    strength: float = 1.0,
    overwrite: bool = False,
    progress: Progress = None,
) -> dict[str, Any]:
    """Inverts pictures to noise by DDIM and draws them again with an edit, which leaves out what it erased.

    It follows All but One (Hong et al., AAAI 2024): the source says that it uses DDIM inversion, the settings are our
    reconstruction. For each picture three are written: before, as the model reads it; base, drawn again without the
    edit, which shows the loss by inversion itself; after, drawn again with the edit.

    Args:
        model, edit, progress: as in `evaluate`.
        images: files of pictures. Each is turned upright, put on white where it is transparent, cropped to a square
            about its middle, and scaled.
        prompt: what the pictures show, including what the edit erases; it is used for inversion and drawing.
        out: the folder for the pictures and `purify.json`.
        steps: the number of DDIM steps, of the inversion and of drawing.
        guidance: the guidance of drawing again; high guidance departs from the picture. The inversion has none.
        refine: the number of further predictions in each step of the inversion, which make it more exact.
        invert_with: the model that inverts the picture, the untouched base or the edited one.
        strength: the strength of the edit.
        overwrite: whether pictures of another request in the folder may be replaced.

    Returns:
        The content of `purify.json`: the settings, and for each picture its files and the mean change of a pixel, of
        255.

    Raises:
        FileExistsError: the folder holds the pictures of another request, and `overwrite` is not set.
        ValueError: there is no picture, the prompt is empty, a file is none, a number is impossible, or the edit is of
            another base.
        OSError: a file is missing, or the folder can't be written in.
    """
    if steps < 1 or refine < 0 or not 0 <= guidance < float("inf"):
        raise ValueError(
            f"--steps is at least 1, --refine and --guidance at least 0; got {steps}, {refine}, {guidance:g}"
        )
    check_choice("invert_with", invert_with, get_args(Inverter))
    if not prompt.strip():
        raise ValueError("the prompt is empty; describe what the pictures show, including what the edit erases")
    check_strength(strength)
    files = [Path(image) for image in to_tuple(images)]
    opened, folder = _open(files), check_folder(out)
    from ..diagnostics.purification import PurifyConfig, purify_pictures
    from ..edits.edit import Edit
    from ..evaluation.images import encode_png
    from ..files import check_request, hash_file, stack_pictures, write_whole

    found = edit if isinstance(edit, Edit) else Edit.load(edit)
    opening = open_later(model)
    how = PurifyConfig(steps=steps, guidance=guidance, refine=refine, invert_with=invert_with, strength=strength)
    named = str(edit) if isinstance(edit, str | Path) else ""
    data = {"model": opening.name, "edit": named, "edit_digest": found.digest, **asdict(how), "prompt": prompt}
    data |= {"images": [{"file": str(file), "sha256": hash_file(file)} for file in files]}
    check_request(folder / "purify.json", data, overwrite)
    drawer = opening.open()
    found.check(drawer)
    before = stack_pictures(opened, drawer.resolution)
    with show_progress(progress) as report:
        made = purify_pictures(drawer, found, before, [prompt], how, partial(report, "purifying"))
    made["before"] = before
    rows = []
    for i, file in enumerate(files):
        row: dict[str, Any] = {"image": str(file)}
        for kind in KINDS:
            row[kind] = write_whole(folder / f"{i:04d}-{kind}.png", encode_png(made[kind][i])).name
        change = {kind: float((made[kind][i].float() - made["before"][i].float()).abs().mean()) for kind in KINDS}
        rows.append(row | {"base_changed": change["base"], "after_changed": change["after"]})
    data |= {"unit": "mean absolute change of a pixel from before, of 255", "pictures": rows}
    write_whole(folder / "purify.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    return data


def _open(files: Sequence[Path]) -> list[Image]:
    """Opens the pictures, before a model is loaded."""
    from ..files import open_picture

    if not files:
        raise ValueError("no picture: name at least one, for example --image photo.png")
    return [open_picture(file) for file in files]
