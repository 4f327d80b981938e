"""Negative guidance on prompts that an attack has hardened (AdvUnlearn, arXiv 2405.15234).

delta = argmin || eps_th(x_t, c + delta) - eps*(x_t, c) ||^2, token embeddings before the prompt; then ESD's loss on
eps_th(x_t, c + delta). An attack is made in every turn, for each row at the row's own state; it goes on from the row's
last prefix, whatever concept that was for, as in the authors' code (`attack_init` "latest"), or from random words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import Tensor

from ...functional.adversary import descend
from ...functional.losses import negative_guidance, weighted_mse
from ...functional.schedules import Space
from ...models.text_room import demand_room
from ..interfaces import Ask, Role, Rows, Source, Stateful, Term, Turn
from ..trainer import Game

Start = Literal["latest", "random"]


@dataclass(frozen=True)
class PrefixAttack:
    """How hard the attack tries: `tokens` embeddings before the prompt, at first random words', moved by Adam."""

    steps: int
    lr: float
    tokens: int
    warm_up: int
    """Updates before the first attack."""
    start: Start = "latest"
    """Where a later attack starts: at the last prefix, or at random words again."""

    def __post_init__(self) -> None:
        if self.start not in get_args(Start):
            raise ValueError(f"an attack starts at {' or '.join(get_args(Start))}, not {self.start!r}")
        if self.tokens < 1 or self.steps < 0 or self.warm_up < 0 or self.lr <= 0:
            raise ValueError(f"an attack has at least 1 token, steps and warm_up not below 0, lr above 0; got {self}")


@final
class Latest(Stateful):
    """The prefixes [n, k, d] found last."""

    def __init__(self) -> None:
        self.index = -1
        self.before: Tensor | None = None
        self.found: Tensor | None = None

    def until(self, index: int) -> Tensor | None:
        """What was found before this turn, also where an attack has been tried at this very turn, in a look aside."""
        if index != self.index:
            self.index, self.before = index, self.found
        return self.before

    def state(self) -> dict[str, Tensor]:
        return {} if self.found is None else {"found": self.found}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.index, self.found = -1, state.get("found")


@final
class Attacked(Term):
    """ESD's objective on attacked prompts, at states of `source`, measured in `space`."""

    role: Role = "erase"

    def __init__(self, source: Source, eta: float, space: Space, attack: PrefixAttack) -> None:
        self.source, self.eta, self.attack, self.latest = source, eta, attack, Latest()
        self.space: Space = space

    def state(self) -> dict[str, Tensor]:
        return self.latest.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.latest.restore(state)

    def prepare(self, game: Game) -> None:
        demand_room(game.model, self.attack.tokens)
        self.source.expect(game.targets())
        self.words = game.model.embedding_table().detach()

    def asks(self, game: Game, turn: Turn) -> Mapping[str, Ask] | None:
        if turn.player is not game.update:
            return None
        prompts = game.prompts(turn, [game.erasure.targets[i] for i in turn.targets])
        cond = game.model.encode(prompts)
        rows = self.source.rows(game, turn, prompts, cond)
        prefix = None
        if self._updates(game, turn) >= self.attack.warm_up:
            if "eps_c" not in rows.known:
                with torch.no_grad():
                    rows = Rows(rows.x, rows.t, {**rows.known, "eps_c": game.model.predict(rows.x, rows.t, cond)[0]})
            prefix = self.harden(game, turn, rows, prompts)
        return {
            "student": Ask(rows, cond, "student", prompts=prompts, prefix=prefix),
            "eps_c": Ask(rows, cond, "frozen", known="eps_c"),
            "eps_0": Ask(rows, game.uncond, "frozen", known="eps_0"),
        }

    def harden(self, game: Game, turn: Turn, rows: Rows, prompts: Sequence[str]) -> Tensor:
        """A prefix [n, k, d] for each row, under which the student says what the frozen model says of the target."""
        latest = self.latest.until(turn.index)
        if latest is None or self.attack.start == "random":
            picks = torch.randint(len(self.words), (len(prompts), self.attack.tokens), generator=turn.rng)
            latest = self.words[picks.to(self.words.device)].float()
        start = latest.to(self.words.device)
        with game.update.bound():
            found = descend(
                lambda prefix: self.error(game, rows, prompts, prefix), start, self.attack.steps, self.attack.lr
            )
        self.latest.found = found
        return found

    @staticmethod
    def _updates(game: Game, turn: Turn) -> int:
        """How many updates came before this one; a search beside them has turns of its own."""
        others = sum(player.turns for term in game.terms for player in term.searches())
        return turn.index // (game.update.turns + others)

    def error(self, game: Game, rows: Rows, prompts: Sequence[str], prefix: Tensor) -> Tensor:
        """The attack's error [n] with a gradient to the prefix, by the weights in place."""
        said = game.model.predict(rows.x, rows.t, game.model.encode_with_grad(prompts, prefix))[0]
        return (said.float() - rows.known["eps_c"].float()).square().flatten(1).mean(dim=1)

    def loss(self, game: Game, asks: Mapping[str, Ask], replies: Mapping[str, Tensor]) -> Tensor:
        target = negative_guidance(replies["eps_0"], replies["eps_c"], self.eta)
        return weighted_mse(replies["student"], target, game.weight(asks["student"].rows.t, self.space))
