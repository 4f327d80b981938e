"""The picture stops looking at the target's words (MACE, Lu et al., CVPR 2024, arXiv 2403.06135).

L = sum over layers of || A_words * M ||_F, A the cross-attention probabilities of the target's tokens, M a mask of
where the target is. The authors have M from a segmenter (Grounded-SAM), once for each picture. Without one it comes
from the attention itself: the frozen model's maps of the target's words, averaged over heads and layers, scaled to
[0, 1] for each picture, and cut.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...functional.schedules import convert, noised
from ...models.cond import Cond
from ...models.hooks.attention import find_places, record_cross_attention
from ...models.segmenter import Segmenter, shares
from ..interfaces import Ask, Role, Rows, Source, Term, Turn
from ..trainer import Game

WORDS, ALL = "attention.words", "attention.all"
"""What the term adds to its conditions: [n, tokens], 1 at the target's words; 1 there and at the end tokens."""


def located(maps: Iterable[Tensor], words: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Where the words are: 1 or 0 [n, 1, h, w], h x w = `size`, from maps [n, heads, places, tokens] of any layers."""
    seen = torch.stack([_grid(_of_words(a, words).mean(dim=(1, 3)), size) for a in maps]).mean(0)
    low, high = (extreme(seen, dim=(1, 2, 3), keepdim=True) for extreme in (torch.amin, torch.amax))
    return ((seen - low) / (high - low).clamp(min=1e-12) > threshold).float()


def inside(maps: Iterable[Tensor], words: Tensor, mask: Tensor) -> Tensor:
    """Mean over rows of the sum over layers of || A_words * M ||_F; maps, words as in `located`, mask [n, 1, h, w]."""
    total = torch.zeros((), device=mask.device)
    for a in maps:
        rows, columns = _shape(a.shape[2], (mask.shape[2], mask.shape[3]))
        near = interpolate(mask, (rows, columns), mode="nearest").flatten(1)[:, None, :, None]
        # The root has no slope at nothing: a mask may be empty in a small layer.
        total = total + (_of_words(a, words) * near).square().sum(dim=(1, 2, 3)).add(1e-12).sqrt().mean()
    return total


def check_threshold(threshold: float) -> None:
    """Raises ValueError where no mask can be cut by it."""
    if not 0 <= threshold < 1:
        raise ValueError(f"the mask's threshold is a share from 0 to below 1, got {threshold}")


@final
@dataclass(frozen=True)
class Focus:
    """Which timesteps are trained on: p(t) in proportion to s(sharp (t - start)) - s(sharp (t - stop)), of 1000."""

    start: float = 200
    stop: float = 400
    sharp: float = 0.05

    def chances(self, of: int) -> Tensor:
        """The probability of each of `of` timesteps."""
        t = torch.arange(of, dtype=torch.double) * 1000 / of
        weight = torch.sigmoid(self.sharp * (t - self.start)) - torch.sigmoid(self.sharp * (t - self.stop))
        return weight / weight.sum()

    def moved(self, game: Game, rows: Rows, rng: torch.Generator) -> Rows:
        """The same pictures under the same noise, at timesteps of this distribution."""
        space, level = game.model.space, game.model.noise_level(rows.t)
        x0 = rows.known["x0"]
        eps = convert(rows.known["noise"], rows.x, level, space, "eps")
        t = torch.multinomial(self.chances(len(game.model.levels)), len(x0), replacement=True, generator=rng)
        return Rows(noised(x0, eps, game.model.noise_level(t)), t.to(rows.x.device), {"x0": x0})


@final
class Attention(Term):
    """MACE's objective on noised pictures of the target, which `source` has.

    Args:
        threshold: of the mask, in shares of the strongest attention, or of the segmenter's certainty.
        ends: the end tokens, which sum up the prompt, count as the target's too (the authors' `use_pooler`).
        focus: the timesteps, where not even ones.
        segment: says where the target is; the attention does where there is none.
    """

    role: Role = "erase"

    def __init__(
        self, source: Source, threshold: float, ends: bool, focus: Focus | None, segment: Segmenter | None = None
    ) -> None:
        check_threshold(threshold)
        self.source, self.threshold, self.ends, self.focus, self.segment = source, threshold, ends, focus, segment
        self.masks: dict[tuple[str, bytes], Tensor] = {}

    def asks(self, game: Game, turn: Turn) -> Mapping[str, Ask] | None:
        if turn.player is not game.update:
            return None
        prompts = game.prompts(turn, [game.erasure.targets[i] for i in turn.targets])
        cond = self._placed(game, turn, game.model.encode(prompts))
        rows = self.source.rows(game, turn, prompts, cond)
        if "x0" not in rows.known:
            raise ValueError(f"{type(self).__name__} is about noised pictures; give it a source of pictures")
        rows = self.focus.moved(game, rows, turn.rng) if self.focus else rows
        mask = self._segmented(self.segment, game, turn, rows) if self.segment else self._attended(game, rows, cond)
        # An ask whose answer is known costs nothing, and takes states and mask to the loss.
        return {"mask": Ask(Rows(rows.x, rows.t, {"mask": mask}), cond, "frozen", known="mask")}

    def loss(self, game: Game, asks: Mapping[str, Ask], replies: Mapping[str, Tensor]) -> Tensor:
        ask = asks["mask"]
        with record_cross_attention(game.model) as maps:
            game.model.predict(ask.rows.x, ask.rows.t, ask.cond)
        return inside(maps.values(), ask.cond.tensors[ALL], replies["mask"])

    def _attended(self, game: Game, rows: Rows, cond: Cond) -> Tensor:
        """[n, 1, h, w] by the frozen model's attention."""
        with torch.no_grad(), record_cross_attention(game.model) as maps:
            game.model.predict(rows.x, rows.t, cond)
            return located(maps.values(), cond.tensors[WORDS], (rows.x.shape[2], rows.x.shape[3]), self.threshold)

    def _segmented(self, segment: Segmenter, game: Game, turn: Turn, rows: Rows) -> Tensor:
        """[n, 1, h, w] by the segmenter, which sees each picture once."""
        pictures = rows.known["x0"]
        things = [game.erasure.targets[i] for i in turn.targets]
        keys = [(thing, x0.float().cpu().numpy().tobytes()) for thing, x0 in zip(things, pictures, strict=True)]
        for i, key in enumerate(keys):
            if key not in self.masks:
                self.masks[key] = self._mask(segment, game, things[i], pictures[i : i + 1])
        return torch.stack([self.masks[key] for key in keys]).to(pictures)

    def _mask(self, segment: Segmenter, game: Game, thing: str, x0: Tensor) -> Tensor:
        """[1, h, w] of one picture's latents [1, c, h, w]."""
        said = shares(segment, game.model.decode(x0), thing)
        mask = (interpolate(said[None], x0.shape[2:], mode="area")[0] > self.threshold).float()
        if not mask.any():
            warnings.warn(
                f"the segmenter finds no {thing!r} in a picture of it; nothing is learned there", stacklevel=2
            )
        return mask

    def _placed(self, game: Game, turn: Turn, cond: Cond) -> Cond:
        """The conditions, with where the target's words stand in each."""
        tokens = cond.tokens
        words = torch.zeros(tokens.shape[:2], device=tokens.device)
        whole = words.clone()
        for row, (target, template) in enumerate(zip(turn.targets, turn.templates, strict=True)):
            frame, concept = game.settings["templates"][template], game.erasure.targets[target]
            at = find_places(game.model, frame, concept)
            words[row, at.start : at.stop] = whole[row, at.start : at.stop] = 1
            if self.ends:
                ids = game.model.tokenizer(frame.format(concept), truncation=True)["input_ids"]  # type: ignore[attr-defined]
                whole[row, len(ids) - 1 :] = 1
        return cond.with_extra({WORDS: words, ALL: whole})


def _of_words(a: Tensor, words: Tensor) -> Tensor:
    return a * words[:, None, None, :].to(a)


def _shape(count: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a layer of `count` places, in the proportions of `size`."""
    shrink = (size[0] * size[1] / count) ** 0.5
    rows, columns = round(size[0] / shrink), round(size[1] / shrink)
    if rows * columns != count:
        raise ValueError(f"{count} places are no smaller copy of {size[0]} x {size[1]}")
    return rows, columns


def _grid(seen: Tensor, size: tuple[int, int]) -> Tensor:
    """[n, 1, h, w] of `size` from [n, places]."""
    return interpolate(seen.unflatten(1, (1, *_shape(seen.shape[1], size))), size, mode="bilinear")
