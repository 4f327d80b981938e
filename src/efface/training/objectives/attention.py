"""Lowers the attention to the target's words where the target is (MACE, Lu et al., CVPR 2024, arXiv 2403.06135).

L = sum over layers of || A_words * M ||_F, where A are the cross-attention probabilities of the target's tokens and M
is a mask of the target. The authors compute M by a segmenter (Grounded-SAM), once for each picture. Without a segmenter
it comes from the attention itself: the teacher's maps of the target's words, averaged over heads and layers, scaled to
[0, 1] for each picture, and thresholded.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...functional.schedules import add_noise, convert
from ...models.cond import Cond
from ...models.hooks.attention import find_places, record_cross_attention
from ...models.segmenter import Segmenter, measure_shares
from ..interfaces import Context, LossRole, Query, Source, States, Step, Term

WORDS, ALL = "attention.words", "attention.all"
"""Keys of what the term adds to its conditions, [n, tokens]: 1 at the target's words; 1 at these and the end tokens."""


def locate_words(maps: Iterable[Tensor], words: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """The mask [n, 1, h, w] of 1 and 0 of where the words are attended to.

    Args:
        maps: cross-attention probabilities [n, heads, positions, tokens] of layers of any resolutions.
        words: [n, tokens], 1 at the words.
        size: h and w.
        threshold: the share of each row's range of attention above which a position is in the mask.
    """
    seen = torch.stack([_resize(_select_words(a, words).mean(dim=(1, 3)), size) for a in maps]).mean(0)
    low, high = (extreme(seen, dim=(1, 2, 3), keepdim=True) for extreme in (torch.amin, torch.amax))
    return ((seen - low) / (high - low).clamp(min=1e-12) > threshold).float()


def measure_inside(maps: Iterable[Tensor], words: Tensor, mask: Tensor) -> Tensor:
    """Mean over rows of sum over layers || A_words * M ||_F; `maps`, `words` as in `located`, `mask` [n, 1, h, w]."""
    total = torch.zeros((), device=mask.device)
    for a in maps:
        rows, columns = _find_shape(a.shape[2], (mask.shape[2], mask.shape[3]))
        near = interpolate(mask, (rows, columns), mode="nearest").flatten(1)[:, None, :, None]
        # The square root has no gradient at 0, and the mask may be empty at a small layer's resolution.
        total = total + (_select_words(a, words) * near).square().sum(dim=(1, 2, 3)).add(1e-12).sqrt().mean()
    return total


def check_threshold(threshold: float) -> None:
    """Raises ValueError where the threshold is not a share that a mask can be cut by."""
    if not 0 <= threshold < 1:
        raise ValueError(f"the mask's threshold is a share from 0 to below 1, got {threshold}")


@final
@dataclass(frozen=True)
class Focus:
    """The distribution of timesteps: p(t) ~ s(sharp (t - start)) - s(sharp (t - stop)), s the sigmoid, t of 1000."""

    start: float = 200
    stop: float = 400
    sharp: float = 0.05

    def compute_chances(self, of: int) -> Tensor:
        """The probabilities [of] of the `of` timesteps."""
        t = torch.arange(of, dtype=torch.double) * 1000 / of
        weight = torch.sigmoid(self.sharp * (t - self.start)) - torch.sigmoid(self.sharp * (t - self.stop))
        return weight / weight.sum()

    def resample(self, context: Context, states: States, rng: torch.Generator) -> States:
        """The same pictures with the same noise, at timesteps of this distribution; their `known` holds "x0" alone."""
        space, bar = context.model.space, context.model.find_noise_level(states.t)
        x0 = states.known["x0"]
        eps = convert(states.known["noise"], states.x, bar, space, "eps")
        t = torch.multinomial(self.compute_chances(len(context.model.levels)), len(x0), replacement=True, generator=rng)
        return States(add_noise(x0, eps, context.model.find_noise_level(t)), t, {"x0": x0})


@final
class Attention(Term):
    """MACE's objective on noised pictures of the target, which come from `source`.

    Args:
        source: a source of pictures.
        threshold: the mask's threshold, a share of the strongest attention or of the segmenter's certainty.
        ends: whether the end tokens, which summarise the prompt, count as the target's too (the authors' `use_pooler`).
        focus: the distribution of the timesteps; without one they are uniform.
        segment: finds the target in a picture; without it the mask comes from the attention.
    """

    role: LossRole = "erase"

    def __init__(
        self, source: Source, threshold: float, ends: bool, focus: Focus | None, segment: Segmenter | None = None
    ) -> None:
        check_threshold(threshold)
        self.source, self.threshold, self.ends, self.focus, self.segment = source, threshold, ends, focus, segment
        self.masks: dict[tuple[str, bytes], Tensor] = {}

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        prompts = context.list_target_prompts(step)
        cond = self._place(context, step, context.model.encode(prompts))
        states = self.source.sample_states(context, step, prompts, cond)
        if "x0" not in states.known:
            raise ValueError(f"{type(self).__name__} is about noised pictures; give it a source of pictures")
        states = self.focus.resample(context, states, step.generator) if self.focus else states
        mask = (
            self._segment(self.segment, context, step, states) if self.segment else self._attend(context, states, cond)
        )
        # A query whose prediction is known takes no pass, and carries states and mask to `compute_loss`.
        return {"mask": Query(States(states.x, states.t, {"mask": mask}), cond, "teacher", known="mask")}

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        query = queries["mask"]
        with record_cross_attention(context.model) as maps:
            context.model.predict(query.states.x, query.states.t, query.cond)
        return measure_inside(maps.values(), query.cond.tensors[ALL], predictions["mask"])

    def _attend(self, context: Context, states: States, cond: Cond) -> Tensor:
        """The mask [n, 1, h, w] from the teacher's attention."""
        with torch.no_grad(), record_cross_attention(context.model) as maps:
            context.model.predict(states.x, states.t, cond)
            return locate_words(
                maps.values(), cond.tensors[WORDS], (states.x.shape[2], states.x.shape[3]), self.threshold
            )

    def _segment(self, segment: Segmenter, context: Context, step: Step, states: States) -> Tensor:
        """The mask [n, 1, h, w] from the segmenter, which is called once for each picture."""
        pictures = states.known["x0"]
        things = [context.erasure.targets[i] for i in step.targets]
        keys = [(thing, x0.float().cpu().numpy().tobytes()) for thing, x0 in zip(things, pictures, strict=True)]
        for i, key in enumerate(keys):
            if key not in self.masks:
                self.masks[key] = self._segment_picture(segment, context, things[i], pictures[i : i + 1])
        return torch.stack([self.masks[key] for key in keys]).to(pictures)

    def _segment_picture(self, segment: Segmenter, context: Context, thing: str, x0: Tensor) -> Tensor:
        """The mask [1, h, w] of one picture, from its latents [1, c, h, w]."""
        said = measure_shares(segment, context.model.decode(x0), thing)
        mask = (interpolate(said[None], x0.shape[2:], mode="area")[0] > self.threshold).float()
        if not mask.any():
            warnings.warn(
                f"the segmenter finds no {thing!r} in a picture of it, which then teaches nothing", stacklevel=2
            )
        return mask

    def _place(self, context: Context, step: Step, cond: Cond) -> Cond:
        """Adds the positions of the target's words in each prompt to the conditions."""
        tokens = cond.tokens
        words = torch.zeros(tokens.shape[:2], device=tokens.device)
        whole = words.clone()
        for row, (target, template) in enumerate(zip(step.targets, step.templates, strict=True)):
            frame, concept = context.config.templates[template], context.erasure.targets[target]
            at = find_places(context.model, frame, concept)
            words[row, at.start : at.stop] = whole[row, at.start : at.stop] = 1
            if self.ends:
                ids = context.model.tokenizer(frame.format(concept), truncation=True)["input_ids"]  # type: ignore[attr-defined]
                whole[row, len(ids) - 1 :] = 1
        return cond.with_extra({WORDS: words, ALL: whole})


def _select_words(a: Tensor, words: Tensor) -> Tensor:
    return a * words[:, None, None, :].to(a)


def _find_shape(count: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a layer of `count` places, in the proportions of `size`."""
    shrink = (size[0] * size[1] / count) ** 0.5
    rows, columns = round(size[0] / shrink), round(size[1] / shrink)
    if rows * columns != count:
        raise ValueError(f"{count} places are no smaller copy of {size[0]} x {size[1]}")
    return rows, columns


def _resize(seen: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes maps [n, positions] to [n, 1, h, w] of `size`."""
    return interpolate(seen.unflatten(1, (1, *_find_shape(seen.shape[1], size))), size, mode="bilinear")
