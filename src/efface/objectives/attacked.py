"""Negative guidance on prompts that an attack has hardened (AdvUnlearn, arXiv 2405.15234).

delta = argmin || eps_th(x_t, c + delta) - eps*(x_t, c) ||^2, token embeddings before the prompt; then ESD's loss on
eps_th(x_t, c + delta). The attack is made anew in every turn, for each row at the row's own state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..functional.adversary import descend
from ..functional.losses import negative_guidance, weighted_mse
from ..functional.schedules import Space
from ..game import Ask, Game, Role, Rows, Source, Term, Turn
from ..models.sd import StableDiffusion


@dataclass(frozen=True)
class PrefixAttack:
    """How hard the attack tries: `tokens` embeddings before the prompt, from random words, by Adam."""

    steps: int
    lr: float
    tokens: int
    warm_up: int
    """Turns before the first attack."""

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.steps < 0 or self.warm_up < 0 or self.lr <= 0:
            raise ValueError(f"an attack has at least 1 token, steps and warm_up not below 0, lr above 0; got {self}")


@final
class Attacked(Term):
    """ESD's objective on attacked prompts, at states of `source`, measured in `space`."""

    role: Role = "erase"

    def __init__(self, source: Source, eta: float, space: Space, attack: PrefixAttack) -> None:
        self.source, self.eta, self.attack = source, eta, attack
        self.space: Space = space

    def prepare(self, game: Game) -> None:
        if not isinstance(game.model, StableDiffusion):
            raise ValueError(
                f"the attack puts embeddings before the words of one CLIP text encoder, which {game.model.name} "
                f"({type(game.model).__name__}) does not have; Stable Diffusion 1.x and 2.x do"
            )
        room = game.model.tokenizer.model_max_length - 2
        if self.attack.tokens > room:
            raise ValueError(f"an attack of {self.attack.tokens} tokens does not fit; {game.model.name} reads {room}")
        self.words = game.model.text_encoder.get_input_embeddings().weight.detach()

    def asks(self, game: Game, turn: Turn) -> Mapping[str, Ask] | None:
        if turn.player is not game.update:
            return None
        prompts = game.prompts(turn, [game.erasure.targets[i] for i in turn.targets])
        cond = game.model.encode(prompts)
        rows = self.source.rows(game, turn, prompts, cond)
        prefix = None
        if turn.index >= self.attack.warm_up:
            if "eps_c" not in rows.known:
                with torch.no_grad():
                    rows = Rows(rows.x, rows.t, {**rows.known, "eps_c": game.model.predict(rows.x, rows.t, cond)[0]})
            prefix = self.harden(game, rows, prompts, turn.rng)
        return {
            "student": Ask(rows, cond, "student", prompts=prompts, prefix=prefix),
            "eps_c": Ask(rows, cond, "frozen", known="eps_c"),
            "eps_0": Ask(rows, game.uncond, "frozen", known="eps_0"),
        }

    def harden(self, game: Game, rows: Rows, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """A prefix [n, k, d] for each row, under which the student says what the frozen model says of the target."""
        picks = torch.randint(len(self.words), (len(prompts), self.attack.tokens), generator=rng)
        start = self.words[picks.to(self.words.device)].float()
        with game.update.bound():
            return descend(
                lambda prefix: self.error(game, rows, prompts, prefix), start, self.attack.steps, self.attack.lr
            )

    def error(self, game: Game, rows: Rows, prompts: Sequence[str], prefix: Tensor) -> Tensor:
        """The attack's error [n] with a gradient to the prefix, by the weights in place."""
        said = game.model.predict(rows.x, rows.t, game.model.read(prompts, prefix))[0]
        return (said.float() - rows.known["eps_c"].float()).square().flatten(1).mean(dim=1)

    def loss(self, game: Game, asks: Mapping[str, Ask], replies: Mapping[str, Tensor]) -> Tensor:
        target = negative_guidance(replies["eps_0"], replies["eps_c"], self.eta)
        return weighted_mse(replies["student"], target, game.weight(asks["student"].rows.t, self.space))
