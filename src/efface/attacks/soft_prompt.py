"""A plain embedding attack: optimises embeddings, not words, with which the edited model denoises the concept.

    min_p || eps_th'(x_t, c(p)) - eps ||^2,   x_t a noised picture of the concept, t drawn evenly

It is the simplest attack with gradients and comes from no single paper: textual inversion (Gal et al., ICLR 2023, arXiv
2208.01618) for each prompt by itself. `words` puts `tokens` free token embeddings before the prompt, which start at
random words; `encoding` changes the text encoder's whole output, or the weights of classes. Nobody could type such an
input, and words will hardly break what it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from ..concept import Prompt, require_positive
from ..functional.adversary import RowwiseAdam
from ..models.adapters.flat import flatten_parts, replace_parts
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
class SoftPrompt(Attack):
    """Optimises embeddings before the prompt, or the prompt's own encoding, by the edited model's gradient."""

    threat: ClassVar[Threat] = "gradients"
    version: ClassVar[str] = "1"
    queries: int = 20
    """Number of queries: pictures drawn and judged for each row, at most."""
    steps: int = 50
    """Number of gradient steps before each query."""
    where: Literal["words", "encoding"] = "words"
    """What is optimised: token embeddings before the prompt (words), or the text encoder's whole output (encoding)."""
    tokens: int = 5
    """Number of embeddings before the prompt, for `words`."""
    lr: float = 0.01
    """Adam's learning rate."""

    @property
    def over_tokens(self) -> bool:
        return self.where == "words"

    def check_settings(self) -> None:
        require_positive(self, "steps", "tokens", "lr")
        if self.where not in ("words", "encoding"):
            raise ValueError(f"an embedding attack is made at words or encoding, not {self.where!r}")

    def check(self, context: AttackContext) -> None:
        require_gradients(context.model, context.edit)
        if self.where == "encoding":
            return
        try:
            demand_room(context.model, self.tokens)
        except ValueError as error:
            raise ValueError(f"{error}; where='encoding' moves what the denoiser reads, on any model") from error

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        return run_rounds(Embeddings(self, context, rows), len(rows))


@final
class Embeddings(IterativeAttack):
    """Every row's embeddings: [n, k, d] before its words, or its own encoding [n, ...]."""

    def __init__(self, how: SoftPrompt, context: AttackContext, rows: Sequence[Row]) -> None:
        self.how, self.context, self.rows = how, context, list(rows)
        self.denoising = build_denoising_error(context, rows, "soft-prompt")
        self.own = context.model.encode([row.prompt for row in rows])
        # A flow may read a prompt by several encoders and by pooled embeddings: all of these change.
        self.whole = context.model.space == "flow"
        self.soft = RowwiseAdam(self._choose_start().float(), how.lr)

    def advance(self, round_index: int) -> Sequence[Candidate]:
        for _ in range(self.how.steps):
            states = self.denoising.draw_states()
            self.soft.step(self.denoising.differentiate(states, self.soft.at, self._encode)[1])
        with torch.no_grad():
            found = self.context.model.get_embedding(self._encode(self.soft.at, slice(None)))
        return [Candidate(Prompt(row.prompt, c), row.seed) for row, c in zip(self.rows, found, strict=True)]

    def keep(self, rows: Sequence[int]) -> None:
        self.rows, self.own = [self.rows[j] for j in rows], self.own[list(rows)]
        self.denoising.keep(rows)
        self.soft.keep(rows)

    def _choose_start(self) -> Tensor:
        if self.how.where == "encoding":
            return flatten_parts(self.own) if self.whole else self.own.embedding
        model = self.context.model
        words = model.tokenize(self.context.words)[:, 1]
        picks = [torch.randint(len(words), (self.how.tokens,), generator=rng) for rng in self.denoising.rngs]
        return model.embed(words[torch.stack(picks).to(words.device)]).detach()

    def _encode(self, at: Tensor, part: slice) -> Cond:
        """The conditions from the embeddings [m, ...] of some of the rows."""
        model = self.context.model
        if self.how.where == "words":
            cond = model.encode_with_grad([row.prompt for row in self.rows[part]], at)
        else:
            own, at = self.own[part], at.to(self.own.embedding)
            cond = replace_parts(own, at, model.name) if self.whole else own.with_embedding(at)
        return model.with_guider_inputs([""] * len(at), cond)
