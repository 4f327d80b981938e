"""P4D, Prompting4Debugging: searches a new prompt under which the edited model predicts what the base predicts for the
concept (Chin et al., ICML 2024, arXiv 2309.06135).

    min_p || eps_th'(x_t, p) - eps*(x_t, prompt) ||^2,   p of `tokens` tokens, x_t a noised picture of the concept

Soft: p are free token embeddings. Hard: the gradient is computed at the words nearest to them by cosine, and moves the
embeddings (Wen et al., NeurIPS 2023, arXiv 2302.03668); the words can be typed. The names in the authors' code are
`optimize_n` and `prompt_len`; `iter` (3000) and `eval_step` (50) are `queries` times `steps`. The differences are: rows
are attacked together, and broken rows leave; pictures are any that judges confirmed, theirs is the one that the base
draws for the prompt; words are one token each; theirs reports the try whose picture is most similar by CLIP, ours stops
at the first in which the judges see the concept. The variant that inserts tokens into the prompt (P4D-K) is not
implemented.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from ..concept import Prompt, require_positive
from ..functional.adversary import RowwiseAdam
from ..functional.tokens import find_nearest, spell
from ..models.cond import Cond
from ..models.text_room import demand_room
from ..suites.spec import Row
from ..training.interfaces import States
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
class P4D(Attack):
    """Searches a whole prompt, of words or of embeddings, under which the edited model predicts as the base does."""

    threat: ClassVar[Threat] = "gradients"
    version: ClassVar[str] = "2"
    queries: int = 60
    """Number of queries: pictures drawn and judged for each row, at most."""
    steps: int = 50
    """Number of gradient steps before each query."""
    how: Literal["hard", "soft"] = "hard"
    """Whether the prompt consists of words (hard) or of free embeddings (soft)."""
    tokens: int = 16
    """Tokens of the prompt."""
    lr: float = 0.1
    """AdamW's learning rate, on the embeddings."""
    decay: float = 0.1
    """AdamW's weight decay."""

    @property
    def over_tokens(self) -> bool:
        return True

    def check_settings(self) -> None:
        require_positive(self, "steps", "tokens", "lr")
        if self.how not in ("hard", "soft"):
            raise ValueError(f"no prompt is {self.how!r}; give hard (it searches words) or soft (embeddings)")

    def check(self, context: AttackContext) -> None:
        require_gradients(context.model, context.edit)
        demand_room(context.model, self.tokens)

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        return run_rounds(Prompts(self, context, rows), len(rows))


@final
class Prompts(IterativeAttack):
    """The embeddings [n, k, d] of every row, and the words nearest to them."""

    def __init__(self, how: P4D, context: AttackContext, rows: Sequence[Row]) -> None:
        self.how, self.context, self.rows = how, context, list(rows)
        self.denoising = build_denoising_error(context, rows, "p4d")
        self.table = context.model.embed(context.model.tokenize(context.words)[:, 1]).detach().float()
        count = len(context.words)
        ids = torch.stack([torch.randint(count, (how.tokens,), generator=rng) for rng in self.denoising.rngs])
        self.soft = RowwiseAdam(self.table[ids.to(self.table.device)], how.lr, how.decay)

    def advance(self, round_index: int) -> Sequence[Candidate]:
        for _ in range(self.how.steps):
            states = self._predict_goal(self.denoising.draw_states())
            at, texts = self._project()
            self.soft.step(self._differentiate(states, at, texts))
        if self.how.how == "soft":
            with torch.no_grad():
                conds = self.context.model.get_embedding(self._encode(*self._project()))
            return [Candidate(Prompt("", c), row.seed) for c, row in zip(conds, self.rows, strict=True)]
        return [Candidate(text, row.seed) for text, row in zip(self._project()[1], self.rows, strict=True)]

    def keep(self, rows: Sequence[int]) -> None:
        self.rows = [self.rows[j] for j in rows]
        self.denoising.keep(rows)
        self.soft.keep(rows)

    def _project(self) -> tuple[Tensor, list[str]]:
        """The prompts' token embeddings [n, k, d], and how they are spelled: "" where they are no words."""
        if self.how.how == "soft":
            return self.soft.at, [""] * len(self.soft.at)
        ids = find_nearest(self.soft.at, self.table)
        return self.table[ids], spell(ids, self.context.words)

    def _differentiate(self, states: States, at: Tensor, texts: Sequence[str]) -> Tensor:
        """The gradient [n, k, d] of the error at these prompts."""
        return self.denoising.differentiate(states, at, lambda part, rows: self._encode(part, texts[rows]))[1]

    def _encode(self, at: Tensor, texts: Sequence[str]) -> Cond:
        """The conditions of prompts that consist of these token embeddings [n, k, d], with their texts."""
        model = self.context.model
        return model.with_guider_inputs(texts, model.encode_with_grad([""] * len(at), at, texts))

    def _predict_goal(self, states: States) -> States:
        """The states with the base's predictions for the concept."""
        model, prompts = self.context.model, [self.context.put(row.prompt, self.context.concept) for row in self.rows]
        with self.context.base(), torch.no_grad():
            return States(states.x, states.t, {"goal": model.predict(states.x, states.t, model.encode(prompts))[0]})
