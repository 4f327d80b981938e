"""Purification: pictures are taken back to noise by DDIM and drawn again with an edit, which leaves out what it erased.

It follows All but One (Hong et al., AAAI 2024): the source says that it uses DDIM inversion, the settings are our
reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..edits.edit import Edit
from ..evaluation.judging import judge_images
from ..functional.rates import Verdict
from ..models.base import Model
from ..models.ddim_inversion import invert, redraw
from ..models.trajectory import choose_image_batch
from ..scorers import Judge
from ..scorers.ssim import Ssim
from ..suites.spec import Row

AGAIN = ("base", "after")
"""The pictures that are drawn again: without the edit, and with it."""


@dataclass(frozen=True, kw_only=True)
class PurifyConfig:
    """The settings by which pictures are inverted to noise and drawn again; `efface.purify` explains them."""

    steps: int
    guidance: float
    refine: int
    invert_with: str = "base"
    """The model that inverts: "base", the untouched one, or "edit"."""
    strength: float = 1.0


@dataclass(frozen=True)
class Purified:
    """What is left of the base's own pictures of some rows after they were drawn again.

    Pictures that do not show what their row asks for are left out.
    """

    shown: Mapping[str, Sequence[Verdict]]
    """Whether each still shows it, drawn again without the edit ("base") and with it ("after")."""
    ssim: Mapping[str, Sequence[float | None]]
    """The structural similarity of each with the picture before."""
    pictures: Mapping[str, Tensor]
    """The pictures "before", "base" and "after", uint8 [n, 3, h, w]."""


def purify_pictures(
    model: Model,
    edit: Edit,
    before: Tensor,
    prompts: Sequence[str],
    how: PurifyConfig,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Tensor]:
    """Draws pictures again without the edit ("base") and with it ("after"), a few at a time.

    Args:
        before: the pictures, uint8 [n, 3, h, w].
        prompts: what each picture shows, or one prompt for all.
        on_progress: called with the number of pictures that are done, and of all.

    Returns:
        Pictures uint8 [n, 3, h, w] by kind.
    """
    size = choose_image_batch(model.resolution)
    each = list(prompts) if len(prompts) > 1 else list(prompts) * len(before)
    done: list[dict[str, Tensor]] = []
    for start in range(0, len(before), size):
        part = slice(start, start + size)
        done.append(_purify_some(model, edit, before[part], each[part], how))
        if on_progress:
            on_progress(min(start + size, len(before)), len(before))
    return {kind: torch.cat([some[kind] for some in done]) for kind in AGAIN}


def _purify_some(
    model: Model, edit: Edit, before: Tensor, prompts: Sequence[str], how: PurifyConfig
) -> dict[str, Tensor]:
    latents, made = model.encode_pictures(before), {}

    def find_noise() -> Tensor:
        cond, uncond = model.encode(prompts), model.encode([""])
        return invert(model, latents, cond, uncond, steps=how.steps, refine=how.refine)

    def draw_from(noise: Tensor) -> Tensor:
        cond, uncond = model.encode(prompts), model.encode([""])
        return model.decode(redraw(model, noise, cond, uncond, steps=how.steps, guidance=how.guidance))

    noise = find_noise()
    made["base"] = draw_from(noise)
    with edit.apply(model, how.strength):
        made["after"] = draw_from(find_noise() if how.invert_with == "edit" else noise)
    return made


def measure_purification(
    model: Model,
    edit: Edit,
    rows: Sequence[Row],
    scorers: Sequence[Judge],
    how: PurifyConfig,
    drawing: Mapping[str, Any],
) -> Purified:
    """Purifies the pictures that the untouched base draws for some rows of one role, each by its row's own prompt.

    Args:
        drawing: the steps and the guidance by which the base draws them; None stands for the model's own.
    """
    keep = rows[0].role == "keep"
    before = model.images([row.prompt for row in rows], [row.seed for row in rows], **drawing)
    seen = [i for i, shown in enumerate(judge_images(scorers, before, rows, before, every=keep)) if shown]
    rows, before = [rows[i] for i in seen], before[seen]
    if not rows:
        return Purified(dict.fromkeys(AGAIN, ()), dict.fromkeys(AGAIN, ()), {"before": before})
    made = purify_pictures(model, edit, before, [row.prompt for row in rows], how)
    shown = {kind: judge_images(scorers, made[kind], rows, before, every=keep) for kind in AGAIN}
    ssim = {kind: [score.value for score in Ssim().score(made[kind], rows, before)] for kind in AGAIN}
    return Purified(shown, ssim, {"before": before, **made})
