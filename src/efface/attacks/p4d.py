"""P4D, Prompting4Debugging: a prompt of its own under which the edited model says what the base said of the concept
(Chin et al., ICML 2024, arXiv 2309.06135).

    min_p || eps_th'(x_t, p) - eps*(x_t, prompt) ||^2,   p of `tokens` tokens, x_t a noised picture of the concept

Soft: p are free token embeddings. Hard: the gradient is taken at the words nearest to them by cosine, and moves them
(Wen et al., NeurIPS 2023, arXiv 2302.03668); the words can be typed. In the authors' code: `optimize_n`, `prompt_len`;
`iter` (3000) and `eval_step` (50) are `queries` times `steps`. Differs: rows are attacked together, and those broken
leave; pictures are any that judges confirmed, theirs the one that the base draws of the prompt; words are one token
each; theirs reports the try whose picture CLIP finds most alike, ours stops at the first that the judges see. The
variant that sprinkles tokens into the prompt (P4D-K) is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from ..concept import Prompt, positive
from ..functional.adversary import Adam, steepness
from ..functional.tokens import nearest, spelled
from ..models.cond import Cond
from ..models.text_room import demand_room
from ..suites.spec import Row
from ..training.interfaces import Rows
from .base import Arena, Attack, Hunt, Shot, Shots, Threat, recalled, rounds
from .denoising_error import demand_gradients


@final
@dataclass(frozen=True, kw_only=True)
class P4D(Attack):
    """Searches a whole prompt, of words or of embeddings, under which the edited model answers as the base does."""

    threat: ClassVar[Threat] = "gradients"
    version: ClassVar[str] = "1"
    queries: int = 60
    """Pictures drawn and judged for each row, at most."""
    steps: int = 50
    """Gradient steps before each picture."""
    how: Literal["hard", "soft"] = "hard"
    """Words that can be typed, or embeddings of no word."""
    tokens: int = 16
    """Tokens of the prompt."""
    lr: float = 0.1
    """AdamW's learning rate, on the embeddings."""
    decay: float = 0.1
    """AdamW's weight decay."""

    def __post_init__(self) -> None:
        positive(self, "queries", "steps", "tokens", "lr")
        if self.how not in ("hard", "soft"):
            raise ValueError(f"no prompt is {self.how!r}; there are hard, soft")

    def check(self, arena: Arena) -> None:
        demand_gradients(arena.model, arena.edit)
        demand_room(arena.model, self.tokens)

    def shots(self, arena: Arena, rows: Sequence[Row]) -> Shots:
        return rounds(Prompts(self, arena, rows), len(rows), self.queries)


@final
class Prompts(Hunt):
    """Every row's embeddings [n, k, d], and the words nearest to them."""

    def __init__(self, how: P4D, arena: Arena, rows: Sequence[Row]) -> None:
        self.how, self.arena, self.rows = how, arena, list(rows)
        self.recall = recalled(arena, rows, "p4d")
        self.table = arena.model.embed(arena.model.tokenize(arena.words)[:, 1]).detach().float()
        count = len(arena.words)
        ids = torch.stack([torch.randint(count, (how.tokens,), generator=rng) for rng in self.recall.rngs])
        self.soft = Adam(self.table[ids.to(self.table.device)], how.lr, how.decay)

    def advance(self, turn: int) -> Sequence[Shot]:
        for _ in range(self.how.steps):
            states = self._goal(self.recall.rows())
            at = self.table[nearest(self.soft.at, self.table)] if self.how.how == "hard" else self.soft.at
            self.soft.step(steepness(lambda p, states=states: self.recall.error(states, self._cond(p)), at)[1])
        if self.how.how == "soft":
            with torch.no_grad():
                conds = self.arena.model.embedding_of(self._cond(self.soft.at))
            return [Shot(Prompt("", c), row.seed) for c, row in zip(conds, self.rows, strict=True)]
        texts = spelled(nearest(self.soft.at, self.table), self.arena.words)
        return [Shot(text, row.seed) for text, row in zip(texts, self.rows, strict=True)]

    def keep(self, rows: Sequence[int]) -> None:
        self.rows = [self.rows[j] for j in rows]
        self.recall.keep(rows)
        self.soft.keep(rows)

    def _cond(self, at: Tensor) -> Cond:
        """What prompts of these token embeddings [n, k, d] alone are read as."""
        model, empty = self.arena.model, [""] * len(self.rows)
        return model.with_guider_inputs(empty, model.encode_with_grad(empty, at))

    def _goal(self, states: Rows) -> Rows:
        """The states, with what the base says there of the concept."""
        model, prompts = self.arena.model, [self.arena.put(row.prompt, self.arena.concept) for row in self.rows]
        with self.arena.base(), torch.no_grad():
            return Rows(states.x, states.t, {"goal": model.predict(states.x, states.t, model.encode(prompts))[0]})
