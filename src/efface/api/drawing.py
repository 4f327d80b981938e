"""`efface.draw`: draws prompts with or without edits; the processes that a launcher started share the work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..concept import check_choice
from ..edits.strength import spread_strengths
from ..files import check_folder, check_request
from .case import Words, to_tuple
from .memory import with_memory_advice
from .progress import Progress, Report, show_progress
from .resources import LazyModel, open_later

if TYPE_CHECKING:
    from ..edits.edit import Edit
    from ..models.base import Model

Sampler = Literal["own", "ddim", "dpm", "unipc"]
SAMPLERS = get_args(Sampler)
Drawn = tuple[str, int, Path]
"""A picture: its prompt, its seed and its file."""


@with_memory_advice
def draw(
    model: Model | LazyModel | str | Path,
    prompts: Words,
    out: str | Path,
    *,
    edits: Edit | str | Path | Sequence[Edit | str | Path] = (),
    strength: float | Sequence[float] = 1.0,
    seed: int = 0,
    count: int = 1,
    steps: int | None = None,
    guidance: float | None = None,
    sampler: Sampler = "own",
    overwrite: bool = False,
    device: str | None = None,
    progress: Progress = None,
) -> list[Drawn]:
    """Draws prompts into a folder, with any number of edits applied together, and writes `out`/draw.json.

    The same request draws the same pictures again; those of another request are not replaced.

    Args:
        model: the result of `efface.load`, or a name, folder or hub id.
        prompts: the prompts.
        out: the folder.
        edits: one edit or several, or their files.
        strength: the strength of the edits: one number for all, or one for each.
        seed: the seed of the first picture of each prompt; the next picture has the next seed.
        count: the number of pictures of each prompt.
        steps, guidance, sampler: how pictures are drawn; the model's own by default.
        overwrite: whether pictures of another request in the folder may be replaced.
        device: the device on which processes of a launcher exchange data; by default their own.
        progress: as in `evaluate`.

    Returns:
        Prompt, seed and file of every picture; empty for all processes but the first.

    Raises:
        FileExistsError: the folder holds the pictures of another request, and `overwrite` is not set.
        ValueError: there is no prompt or no such sampler, the count is below 1, a seed is below 0, a strength is
            impossible, there is another number of strengths than of edits, or an edit is of another base.
        OSError: a file is missing, or the folder can't be written in.
    """
    asked, edits, folder = to_tuple(prompts), to_tuple(edits), Path(out)
    if not asked:
        raise ValueError('no prompt: name at least one, for example --prompt "a cat"')
    check_choice("sampler", sampler, SAMPLERS)
    if count < 1:
        raise ValueError(f"--count is {count}; it must be at least 1")
    strengths = spread_strengths(strength, len(edits))
    check_folder(folder)
    from ..edits.edit import Edit
    from ..files import write_whole
    from ..models.trajectory import check_seeds
    from ..training.distributed import join_process_group

    opening = open_later(model)
    check_seeds((seed, seed + count - 1))
    found = [each if isinstance(each, Edit) else Edit.load(each) for each in edits]
    pairs = [(prompt, seed + i) for prompt in asked for i in range(count)]
    wanted = [(p, s, folder / f"{i:04d}-seed{s}.png") for i, (p, s) in enumerate(pairs)]
    how = {"steps": steps, "guidance": guidance, "sampler": sampler}
    named = [str(each) for each in edits if isinstance(each, str | Path)]
    drawn = [{"prompt": prompt, "seed": s, "file": file.name} for prompt, s, file in wanted]
    data = {"model": opening.name, "edits": named, "edit_digests": [each.digest for each in found]}
    data |= {"strength": strength, **how, "pictures": drawn}
    check_request(folder / "draw.json", data, overwrite)
    with join_process_group(device) as group, show_progress(progress if group.is_main else False) as report:
        _draw_share(opening, found, strengths, wanted[group.shard(len(wanted))], how, report)
        group.barrier()
        if not group.is_main:
            return []
    write_whole(folder / "draw.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    return wanted


def _draw_share(
    opening: LazyModel,
    edits: Sequence[Edit],
    strengths: Sequence[float],
    wanted: Sequence[Drawn],
    how: dict[str, Any],
    report: Report,
) -> None:
    """Draws the pictures of one process, each into its file."""
    from ..edits.edit import apply
    from ..evaluation.images import encode_png
    from ..files import write_whole
    from ..models.trajectory import choose_image_batch

    model = opening.open()
    if not wanted:  # more processes than pictures
        return
    with apply(model, edits, strengths):
        images = model.images(
            [prompt for prompt, _, _ in wanted],
            [seed for _, seed, _ in wanted],
            batch=choose_image_batch(model.resolution),
            progress=lambda i, n: report("drawing", i, n),
            **how,
        )
    for image, (_, _, file) in zip(images, wanted, strict=True):
        write_whole(file, encode_png(image))
