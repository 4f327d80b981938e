"""Words of a vocabulary are held in place: L = || eps_th(x_t, c_s) - eps*(x_t, c_s) ||^2.

`Anchoring` asks at the states of the target, of words that are less likely the more they are like it (SPM's latent
anchoring, arXiv 2312.16145); `Retained` at states of their own, of words drawn evenly (AdvUnlearn, arXiv 2405.15234).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from ...concept import check_templates
from ...functional.losses import weighted_mse
from ...functional.schedules import Space
from ...functional.words import other_words
from ..interfaces import Ask, Role, Rows, Source, Term, Turn
from ..trainer import Game

SCALES = (0.8, 1.2)


@final
class Anchoring(Term):
    """SPM's preservation: `count` words for each row of `source`, the objective's own, under the row's template.

    A word c_s is taken with a probability in proportion to 1 - cos(c_s, c), c the row's target, and its embedding is
    scaled by a number from U(0.8, 1.2). The authors accept random Gaussian embeddings with that probability; theirs
    are nearly orthogonal to any prompt, ours are prompts.
    """

    role: Role = "keep"

    def __init__(self, source: Source, words: Sequence[str], count: int, space: Space) -> None:
        if count < 1:
            raise ValueError(f"at least 1 anchoring word a row, got {count}")
        self.source, self.given, self.count = source, words, count
        self.space: Space = space

    def prepare(self, game: Game) -> None:
        if not game.uncond.sequence:
            raise ValueError(f"{game.model.name} reads no text; anchoring scales the embeddings of words")
        if game.live:
            raise ValueError(
                f"{game.name} trains a text encoder, and anchoring holds scaled embeddings, which none reads from "
                "words; take weights of the U-Net"
            )
        targets = game.erasure.targets
        self.words = _others(self.given, game)
        own = game.model.encode(targets).tokens.flatten(1)
        chunks = [self.words[i : i + 256] for i in range(0, len(self.words), 256)]
        alike = [_cosines(game.model.encode(chunk).tokens.flatten(1), own) for chunk in chunks]
        self.chance = (1 - torch.cat(alike).T.cpu()).clamp(min=0)
        if not (self.chance.sum(dim=1) > 0).all():
            raise ValueError(f"no word is unlike {', '.join(targets)} among {len(self.words)}; give other words")

    def asks(self, game: Game, turn: Turn) -> Mapping[str, Ask] | None:
        if turn.player is not game.update:
            return None
        targets = game.prompts(turn, [game.erasure.targets[i] for i in turn.targets])
        rows = self.source.rows(game, turn, targets, game.model.encode(targets))
        words, templates = self.draw(turn), game.settings["templates"]
        asked = [templates[t].format(w) for t, row in zip(turn.templates, words, strict=True) for w in row]
        low, high = SCALES
        scale = low + (high - low) * torch.rand(len(asked), 1, 1, generator=turn.rng)
        own = game.model.encode(asked)
        cond = own.with_embedding(own.tokens * scale.to(own.tokens))
        states = Rows(rows.x.repeat_interleave(self.count, 0), rows.t.repeat_interleave(self.count, 0))
        return {"student": Ask(states, cond, "student"), "eps_s": Ask(states, cond, "frozen")}

    def draw(self, turn: Turn) -> list[list[str]]:
        """The words of each row."""
        picks = torch.multinomial(self.chance[list(turn.targets)], self.count, replacement=True, generator=turn.rng)
        return [[self.words[i] for i in row] for row in picks.tolist()]

    def loss(self, game: Game, asks: Mapping[str, Ask], replies: Mapping[str, Tensor]) -> Tensor:
        weight = game.weight(asks["student"].rows.t, self.space)
        return weighted_mse(replies["student"], replies["eps_s"], weight)


@final
class Retained(Term):
    """`count` words a turn under `template`, whatever the objective's batch, at states of `source` under each."""

    role: Role = "keep"

    def __init__(self, source: Source, words: Sequence[str], template: str, count: int, space: Space) -> None:
        if count < 1:
            raise ValueError(f"at least 1 word to retain a turn, got {count}")
        check_templates([template])
        self.source, self.given, self.template, self.count = source, words, template, count
        self.space: Space = space

    def prepare(self, game: Game) -> None:
        self.words = _others(self.given, game)

    def asks(self, game: Game, turn: Turn) -> Mapping[str, Ask] | None:
        if turn.player is not game.update:
            return None
        bounds = (len(self.words), 2**31, game.settings["draw_steps"])
        words, noise, points = (torch.randint(b, (self.count,), generator=turn.rng).tolist() for b in bounds)
        none = [0] * self.count
        own = replace(turn, targets=none, templates=none, noise=noise, points=points)
        prompts = [self.template.format(self.words[i]) for i in words]
        cond = game.model.encode(prompts)
        rows = self.source.rows(game, own, prompts, cond)
        return {
            "student": Ask(rows, cond, "student", prompts=prompts),
            "eps_c": Ask(rows, cond, "frozen", known="eps_c"),
        }

    def loss(self, game: Game, asks: Mapping[str, Ask], replies: Mapping[str, Tensor]) -> Tensor:
        weight = game.weight(asks["student"].rows.t, self.space)
        return weighted_mse(replies["student"], replies["eps_c"], weight)


def _others(words: Sequence[str], game: Game) -> list[str]:
    """The words that are none of the targets; ValueError where none is left."""
    if left := other_words(words, game.erasure.targets):
        return left
    raise ValueError(f"no word to hold in place is left of {len(words)}; name concepts to keep, or take more words")


def _cosines(rows: Tensor, others: Tensor) -> Tensor:
    """[n, m] between rows [n, d] and [m, d]."""
    return torch.cosine_similarity(rows.float()[:, None], others.float()[None], dim=2)
