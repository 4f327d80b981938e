"""UnlearnDiffAtk: searches words before the prompt with which the edited model denoises the concept (Zhang et al., ECCV
2024, arXiv 2310.11868).

    min_prefix || eps_th'(x_t, [prefix; prompt]) - eps ||^2,   x_t a noised picture of the concept

Each position of the prefix is a point of a simplex over all words. A step draws a word for every position in
proportion, uses the gradient there as the gradient at the points (straight-through), clamps it to [-1, 1], takes a step
of Adam with an L2 penalty, and projects. After `steps` steps at one timestep the most likely words are drawn and
judged; the next steps use the next timestep, from the clean end on; the timesteps are the middles of `queries` equal
parts. The names in the authors' code are `TextGrad`, `STERandSelect` and `sampled_t`; their 50 timesteps of 40 steps
are `queries` and `steps`; they use five tokens for nudity and three for styles and objects. The differences are: rows
are attacked together, and broken rows leave; each step uses one of the pictures that judges confirmed, all of theirs
use the one that the base draws for the prompt; words are one token each, so that the prompt can be typed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..concept import require_positive
from ..functional.adversary import RowwiseAdam
from ..functional.tokens import compute_slopes, draw_tokens, project_to_simplex, spell
from ..models.cond import Cond
from ..models.text_room import demand_room
from ..suites.spec import Row
from .base import (
    Attack,
    AttackContext,
    Candidate,
    IterativeAttack,
    Proposals,
    Threat,
    build_denoising_error,
    run_rounds,
)
from .denoising_error import require_gradients


@final
@dataclass(frozen=True, kw_only=True)
class UnlearnDiff(Attack):
    """Searches words to put before the prompt by the edited model's own gradient, as UnlearnDiffAtk does."""

    threat: ClassVar[Threat] = "gradients"
    version: ClassVar[str] = "2"
    queries: int = 50
    """Number of queries of each row, at most; each attacks another timestep."""
    steps: int = 40
    """Number of gradient steps before each query."""
    tokens: int = 5
    """Number of words before the prompt."""
    lr: float = 0.01
    """Adam's learning rate, on the simplex."""
    decay: float = 0.1
    """Weight of the L2 penalty on the simplex's points."""

    @property
    def over_tokens(self) -> bool:
        return True

    def check_settings(self) -> None:
        require_positive(self, "steps", "tokens", "lr")

    def check(self, context: AttackContext) -> None:
        require_gradients(context.model, context.edit)
        demand_room(context.model, self.tokens)

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        return run_rounds(Prefixes(self, context, rows), len(rows))


@final
class Prefixes(IterativeAttack):
    """The points [n, k, V] of every row's prefix on the simplex over words."""

    def __init__(self, how: UnlearnDiff, context: AttackContext, rows: Sequence[Row]) -> None:
        self.how, self.context, self.rows = how, context, list(rows)
        self.denoising = build_denoising_error(context, rows, "unlearndiff")
        ids = context.model.tokenize(context.words)[:, 1]
        self.table = context.model.embed(ids).detach().float()
        even = torch.full((len(rows), how.tokens, len(ids)), 1 / len(ids), device=self.table.device)
        self.points = RowwiseAdam(even, how.lr)

    def advance(self, round_index: int) -> Sequence[Candidate]:
        at = int((round_index + 0.5) / self.how.queries * len(self.context.model.levels))
        for _ in range(self.how.steps):
            self._step(at)
        texts = self._put_before(spell(self.points.at.argmax(dim=-1), self.context.words))
        return [Candidate(text, row.seed) for text, row in zip(texts, self.rows, strict=True)]

    def _put_before(self, prefixes: Sequence[str]) -> list[str]:
        """The rows' prompts with these words before them."""
        return [f"{prefix} {row.prompt}" for prefix, row in zip(prefixes, self.rows, strict=True)]

    def keep(self, rows: Sequence[int]) -> None:
        self.rows = [self.rows[j] for j in rows]
        self.denoising.keep(rows)
        self.points.keep(rows)

    def _step(self, at: int) -> None:
        model, points = self.context.model, self.points
        states = self.denoising.draw_states(at)
        prompts = [row.prompt for row in self.rows]
        ids = draw_tokens(points.at, self.denoising.rngs)
        words, spelled = self.table[ids], self._put_before(spell(ids, self.context.words))

        def read(prefix: Tensor, part: slice) -> Cond:
            cond = model.encode_with_grad(prompts[part], prefix, spelled[part])
            return model.with_guider_inputs(spelled[part], cond)

        _, grad = self.denoising.differentiate(states, words, read)
        points.step(compute_slopes(grad, self.table).clamp(-1, 1) + self.how.decay * points.at)
        points.at = project_to_simplex(points.at)
