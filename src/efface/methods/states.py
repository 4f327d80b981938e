"""Functions that build sources of states and pictures from the fields of a method."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..concept import Erasure
from ..files import read_pictures
from ..functional.words import list_other_words, mentions
from ..models.base import Model
from ..training.interfaces import Source
from ..training.states.pictures import ANY, Noise, Pictures, encode_by_caption, read_enough, read_latents
from ..training.states.trajectories import Frozen, Refreshed, Student
from .base import ImageMethod, Trained, TrajectoryMethod
from .searching import SearchMethod

LEAST_PATHS = 4
"""Stored trajectories of each of many targets."""


def share_paths(paths: int, targets: int) -> int:
    """How many stored trajectories each target has: `paths` shared out, but not fewer than `LEAST_PATHS` of them.

    An update has as many rows however many targets there are, so with many each is seen less often, and needs fewer.
    """
    return max(min(paths, LEAST_PATHS), -(-paths // targets))


def build_target_trajectories(method: TrajectoryMethod, erasure: Erasure) -> Source:
    """The source that `source` and `refresh` name, with the method's `paths` shared out among the targets."""
    return build_trajectories(method, share_paths(method.paths, len(erasure.targets)))


def build_trajectories(method: TrajectoryMethod, paths: int) -> Source:
    """The source that `source` and `refresh` name, with `paths` trajectories of each prompt where they are stored."""
    if method.source == "student" and not method.refresh:
        return Student(method.draw_steps, method.guidance, method.sampler)
    if method.source == "student":
        return Refreshed(method.draw_steps, method.guidance, paths, method.refresh, method.sampler)
    if method.source == "frozen":
        return Frozen(method.draw_steps, method.guidance, paths, method.refresh, method.sampler)
    raise ValueError(f"no source {method.source!r}; there are student, frozen")


def build_preservation_states(method: SearchMethod) -> Source:
    """The source of words to preserve: the method's own, or recordings of the teacher that are drawn once."""
    if method.keep_source == "same":
        return build_trajectories(method, method.keep_paths)
    if method.keep_source == "frozen":
        return Frozen(method.draw_steps, method.guidance, method.keep_paths, sampler=method.sampler)
    raise ValueError(f"no source {method.keep_source!r} of preserved words; there are same, frozen")


def build_forget_pictures(method: ImageMethod, model: Model, erasure: Erasure, noise: Noise = "gaussian") -> Pictures:
    """Pictures of the targets: the folder's, or ones that the model draws, as many of each prompt."""
    given = read_target_latents(model, method.forget_images, erasure, method) if method.forget_images else {}
    each = -(-method.pictures // (len(erasure.targets) * len(method.templates)))
    return Pictures(each, method.draw_steps, method.guidance, given, noise, method.antithetic)


def build_remain_pictures(method: ImageMethod, model: Model, erasure: Erasure) -> tuple[Pictures, Sequence[str]]:
    """Pictures to remain, and their captions: the folder's, the kept concepts', or those of words of the vocabulary.

    Raises:
        ValueError: a folder and concepts to keep are both given, the folder shows a target, or nothing remains.
    """
    if method.remain_images:
        if erasure.keep:
            named = ", ".join(erasure.keep)
            raise ValueError(
                f"what remains is a folder's pictures or the concepts to keep ({named}), not both; omit one"
            )
        pictures = read_pictures(method.remain_images, model.resolution)
        if held := [c for c in pictures if mentions(c, erasure.targets)]:
            raise ValueError(
                f"{method.remain_images} is to remain, and has captions of what is to be erased: {', '.join(held)}; "
                "take these pictures out, or give them another caption"
            )
        given = encode_by_caption(model, pictures)
        return Pictures(1, method.draw_steps, method.guidance, given, antithetic=method.antithetic), list(given)
    words = list(erasure.keep) or list_other_words(model.list_words(3000), erasure.targets)[: method.remain_words]
    if not words:
        raise ValueError("nothing remains: give concepts to keep, a folder of pictures, or more remain_words")
    captions = [template.format(word) for word in words for template in method.templates]
    each = -(-method.pictures // len(captions))
    return Pictures(each, method.draw_steps, method.guidance, antithetic=method.antithetic), captions


def choose_labels(model: Model, erasure: Erasure, otherwise: str) -> Sequence[str]:
    """Prompts to confuse a target with: the anchor; else the other classes of a model of classes; else `otherwise`."""
    if erasure.anchor:
        return (erasure.anchor,)
    classes = getattr(model, "classes", ())
    return list_other_words(classes, erasure.targets) if classes else (otherwise,)


def read_target_latents(model: Model, folder: str, erasure: Erasure, method: Trained) -> dict[str, Tensor]:
    """Latents [m, c, h, w] of a folder's pictures, by the prompts that they serve: one target's are served by all.

    Of several targets, each is served by the pictures whose caption names it.

    Raises:
        ValueError: fewer than a batch; or, of several targets, a caption names none, or none of them names a target.
    """
    if len(erasure.targets) == 1:
        return {ANY: read_latents(model, folder, method.batch)}
    pictures = read_enough(model, folder, method.batch)
    shown = {caption: _find_named(caption, erasure.targets) for caption in pictures}
    unknown = [repr(caption) for caption, targets in shown.items() if not targets]
    missing = [target for target in erasure.targets if not any(target in targets for targets in shown.values())]
    if unknown or missing:
        what = f"captions that name no target: {', '.join(unknown[:5])}" if unknown else f"none of {', '.join(missing)}"
        raise ValueError(
            f"pictures of several targets need captions that tell them apart, by subfolder, metadata.jsonl or a .txt "
            f"beside each; {folder} has {what}"
        )
    latents = encode_by_caption(model, pictures)
    return {
        template.format(target): stack
        for target in erasure.targets
        for stack in [torch.cat([latents[caption] for caption, targets in shown.items() if target in targets])]
        for template in method.templates
    }


def _find_named(caption: str, targets: Sequence[str]) -> list[str]:
    """The targets that a caption names; one that names "hot dog" does not name "dog"."""
    named = [target for target in targets if mentions(caption, [target])]
    return [target for target in named if not any(target != other and mentions(other, [target]) for other in named)]
