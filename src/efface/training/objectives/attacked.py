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
from ..interfaces import Checkpointable, LossRole, Query, Source, States, Step, Term
from ..trainer import Trainer

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
class Latest(Checkpointable):
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

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self.found is None else {"found": self.found}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.index, self.found = -1, state.get("found")


@final
class Attacked(Term):
    """ESD's objective on attacked prompts, at states of `source`, measured in `space`."""

    role: LossRole = "erase"

    def __init__(self, source: Source, eta: float, space: Space, attack: PrefixAttack) -> None:
        self.source, self.eta, self.attack, self.latest = source, eta, attack, Latest()
        self.space: Space = space

    def state_dict(self) -> dict[str, Tensor]:
        return self.latest.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.latest.load_state_dict(state)

    def prepare(self, trainer: Trainer) -> None:
        demand_room(trainer.model, self.attack.tokens)
        self.source.expect(trainer.targets())
        self.words = trainer.model.embedding_table().detach()

    def queries(self, trainer: Trainer, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not trainer.update:
            return None
        prompts = trainer.prompts(step, [trainer.erasure.targets[i] for i in step.targets])
        cond = trainer.model.encode(prompts)
        states = self.source.sample_states(trainer, step, prompts, cond)
        prefix = None
        if self._updates(trainer, step) >= self.attack.warm_up:
            if "eps_c" not in states.known:
                with torch.no_grad():
                    states = States(
                        states.x,
                        states.t,
                        {**states.known, "eps_c": trainer.model.predict(states.x, states.t, cond)[0]},
                    )
            prefix = self.harden(trainer, step, states, prompts)
        return {
            "student": Query(states, cond, "student", prompts=prompts, prefix=prefix),
            "eps_c": Query(states, cond, "teacher", known="eps_c"),
            "eps_0": Query(states, trainer.uncond, "teacher", known="eps_0"),
        }

    def harden(self, trainer: Trainer, step: Step, states: States, prompts: Sequence[str]) -> Tensor:
        """A prefix [n, k, d] for each row, under which the student says what the frozen model says of the target."""
        latest = self.latest.until(step.index)
        if latest is None or self.attack.start == "random":
            picks = torch.randint(len(self.words), (len(prompts), self.attack.tokens), generator=step.generator)
            latest = self.words[picks.to(self.words.device)].float()
        start = latest.to(self.words.device)
        with trainer.update.swapped_in():
            found = descend(
                lambda prefix: self.error(trainer, states, prompts, prefix), start, self.attack.steps, self.attack.lr
            )
        self.latest.found = found
        return found

    @staticmethod
    def _updates(trainer: Trainer, step: Step) -> int:
        """How many updates came before this one; a search beside them has turns of its own."""
        others = sum(learner.steps_per_round for term in trainer.terms for learner in term.searches())
        return step.index // (trainer.update.steps_per_round + others)

    def error(self, trainer: Trainer, states: States, prompts: Sequence[str], prefix: Tensor) -> Tensor:
        """The attack's error [n] with a gradient to the prefix, by the weights in place."""
        said = trainer.model.predict(states.x, states.t, trainer.model.read(prompts, prefix))[0]
        return (said.float() - states.known["eps_c"].float()).square().flatten(1).mean(dim=1)

    def loss(self, trainer: Trainer, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        target = negative_guidance(predictions["eps_0"], predictions["eps_c"], self.eta)
        return weighted_mse(predictions["student"], target, trainer.weight(queries["student"].states.t, self.space))
