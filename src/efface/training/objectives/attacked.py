"""Negative guidance on adversarial prompts that an attack finds in each step (AdvUnlearn, arXiv 2405.15234).

delta = argmin || eps_th(x_t, c + delta) - eps*(x_t, c) ||^2 over token embeddings before the prompt; then ESD's loss on
eps_th(x_t, c + delta). Every step makes an attack for each row, at the row's own state. The attack starts at random
words, as in the command of the authors' README, or at the prefix that the row had in the step before, whatever concept
that was found for (`attack_init` "latest" of the authors' code).
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
from ..interfaces import Checkpointable, Context, LossRole, Query, Source, States, Step, Term

Start = Literal["latest", "random"]


@dataclass(frozen=True)
class PrefixAttack:
    """An attack by `tokens` embeddings before the prompt, which start at random words; Adam takes `steps` steps."""

    steps: int
    lr: float
    tokens: int
    warm_up: int
    """Number of updates before the first attack."""
    start: Start = "random"
    """The start of later attacks: random words again, or the last prefix."""

    def __post_init__(self) -> None:
        if self.start not in get_args(Start):
            raise ValueError(f"an attack starts at {' or '.join(get_args(Start))}, not {self.start!r}")
        if self.tokens < 1 or self.steps < 0 or self.warm_up < 0 or self.lr <= 0:
            raise ValueError(f"an attack has at least 1 token, steps and warm_up not below 0, lr above 0; got {self}")


@final
class Latest(Checkpointable):
    """The prefixes [n, k, d] that the last attack found."""

    def __init__(self) -> None:
        self.index: int | None = None
        self.before: Tensor | None = None
        self.found: Tensor | None = None

    def get_before(self, index: int) -> Tensor | None:
        """The prefixes from before the step of this index, even if an auxiliary step of it has attacked since."""
        if index != self.index:
            self.index, self.before = index, self.found
        return self.before

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self.found is None else {"found": self.found}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.index, self.found = None, state.get("found")


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

    def prepare(self, context: Context) -> None:
        demand_room(context.model, self.attack.tokens)
        self.source.expect(context.list_all_target_prompts())
        self.words = context.model.get_embedding_table().detach()

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        prompts = context.list_target_prompts(step)
        cond = context.model.encode(prompts)
        states = self.source.sample_states(context, step, prompts, cond)
        prefix = None
        if step.round >= self.attack.warm_up:
            if "eps_c" not in states.known:
                with torch.no_grad():
                    states = States(
                        states.x,
                        states.t,
                        {**states.known, "eps_c": context.model.predict(states.x, states.t, cond)[0]},
                    )
            prefix = self.harden(context, step, states, prompts)
        return {
            "student": Query(states, cond, "student", prompts=prompts, prefix=prefix),
            "eps_c": Query(states, cond, "teacher", known="eps_c"),
            "eps_0": Query(states, context.uncond, "teacher", known="eps_0"),
        }

    def harden(self, context: Context, step: Step, states: States, prompts: Sequence[str]) -> Tensor:
        """Finds a prefix [n, k, d] for each row, with which the student predicts what the teacher does without it."""
        latest = self.latest.get_before(step.index)
        if latest is None or self.attack.start == "random":
            picks = torch.randint(len(self.words), (len(prompts), self.attack.tokens), generator=step.generator)
            latest = self.words[picks.to(self.words.device)].float()
        start = latest.to(self.words.device)
        with context.update.swapped_in():
            found = descend(
                lambda prefix: self.compute_error(context, states, prompts, prefix),
                start,
                self.attack.steps,
                self.attack.lr,
                factor=context.model.loss_factor,
            )
        self.latest.found = found
        return found

    def compute_error(self, context: Context, states: States, prompts: Sequence[str], prefix: Tensor) -> Tensor:
        """The attack's error [n] with the weights in place, and with a gradient to the prefix [n, k, d]."""
        said = context.model.predict(states.x, states.t, context.model.encode_with_grad(prompts, prefix))[0]
        return (said.float() - states.known["eps_c"].float()).square().flatten(1).mean(dim=1)

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        target = negative_guidance(predictions["eps_0"], predictions["eps_c"], self.eta)
        return weighted_mse(predictions["student"], target, context.weigh_loss(queries["student"].states.t, self.space))
