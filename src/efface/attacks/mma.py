"""MMA: searches words other than the concept's name with the text encoding of the concept's prompt (after the text
attack of MMA-Diffusion, Yang et al., CVPR 2024, arXiv 2311.17516).

    max_p cos(TE'(p), TE*(prompt)),   p of `tokens` words

It is a greedy search by gradient, as in GCG (Zou et al., arXiv 2307.15043): the gradient at the words gives the `top`
most promising other words for each position, and the best of `candidates` prompts with one changed word is taken. It
needs only the text encoder, so guides do not stop it. The names in the authors' code are `control_length`, `topk` and
`n_steps` (1000, here `queries` times `steps`), with 512 candidates; they exclude tokens that contain a sensitive word,
we exclude words related to the concept's names. The differences are: the current prompt stays where no candidate is
better, and is then drawn with another seed; the cosine is of everything that the denoiser reads, theirs of the pooled
encoding; words are one token each; a picture is drawn and judged every `steps` steps, theirs at the end. The attack on
the safety checker's vision is not implemented.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from ..concept import require_positive
from ..functional.adversary import measure_steepness
from ..functional.tokens import compute_slopes, spell, substitute
from ..models.text_room import demand_room
from ..suites.spec import Row
from .base import Attack, AttackContext, Candidate, IterativeAttack, Proposals, Threat, run_rounds


@final
@dataclass(frozen=True, kw_only=True)
class MMA(Attack):
    """Searches words other than the concept's name which the text encoder encodes as it does the concept's prompt."""

    threat: ClassVar[Threat] = "encoder"
    version: ClassVar[str] = "2"
    learns_from_images: ClassVar[bool] = False
    queries: int = 10
    """Number of queries: pictures drawn and judged for each row, at most."""
    steps: int = 100
    """Number of substitutions before each query."""
    tokens: int = 20
    """Number of words of the prompt."""
    top: int = 256
    """Number of words that are tried at each place, those with the best gradient first."""
    candidates: int = 512
    """Number of prompts tried for each substitution."""

    @property
    def over_tokens(self) -> bool:
        return True

    def check_settings(self) -> None:
        require_positive(self, "steps", "tokens", "top", "candidates")

    def check(self, context: AttackContext) -> None:
        demand_room(context.model, self.tokens)
        if not context.list_other_words():
            raise ValueError(
                f"{context.model.name} knows no word beside {context.concept!r}: there is no prompt to search"
            )

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        return run_rounds(Readings(self, context, rows), len(rows))


@final
class Readings(IterativeAttack):
    """The words [n, k] of every row, and the encoding [n, D] that they should have."""

    def __init__(self, how: MMA, context: AttackContext, rows: Sequence[Row]) -> None:
        self.how, self.context, self.rows = how, context, list(rows)
        self.words = context.list_other_words()
        model = context.model
        with context.base():
            goals = model.encode([context.put(row.prompt, context.concept) for row in rows])
        self.wanted = model.get_embedding(goals).flatten(1).float()
        self.table = model.embed(model.tokenize(self.words)[:, 1]).detach().float()
        self.rngs = [torch.Generator().manual_seed(context.make_rng("mma", row.id).getrandbits(62)) for row in rows]
        picks = [torch.randint(len(self.words), (how.tokens,), generator=rng) for rng in self.rngs]
        self.ids = torch.stack(picks).to(self.table.device)
        self.drawn: list[str] = [""] * len(rows)

    def advance(self, round_index: int) -> Sequence[Candidate]:
        for _ in range(self.how.steps):
            self._substitute()
        before, self.drawn = self.drawn, spell(self.ids, self.words)
        again = [text == old for text, old in zip(self.drawn, before, strict=True)]
        return [
            Candidate(text, self._derive_seed(row, round_index) if same else row.seed)
            for text, row, same in zip(self.drawn, self.rows, again, strict=True)
        ]

    def _derive_seed(self, row: Row, round_index: int) -> int:
        """Another seed for a prompt that was drawn already, because the search found no better one."""
        return self.context.make_rng("mma", row.id, round_index).randrange(2**31)

    def keep(self, rows: Sequence[int]) -> None:
        left = list(rows)
        self.rows, self.rngs = [self.rows[j] for j in left], [self.rngs[j] for j in left]
        self.drawn = [self.drawn[j] for j in left]
        self.ids, self.wanted = self.ids[left], self.wanted[left]

    def _substitute(self) -> None:
        """Replaces each prompt by the best of some prompts with one changed word, if that is better."""
        model = self.context.model
        with model.frozen():
            far, grad = measure_steepness(
                lambda words: self._measure_distance(words, self.ids, self.wanted),
                self.table[self.ids],
                model.loss_factor,
            )
        tried = substitute(self.ids, compute_slopes(grad, self.table), self.how.top, self.how.candidates, self.rngs)
        n, m = tried.shape[:2]
        with torch.no_grad():
            parts = zip(tried.flatten(0, 1).split(256), self.wanted.repeat_interleave(m, 0).split(256), strict=True)
            measured = [self._measure_distance(self.table[ids], ids, wanted) for ids, wanted in parts]
            distance = torch.cat(measured).reshape(n, m)
        best = distance.min(dim=1)
        chosen = tried[torch.arange(n, device=tried.device), best.indices]
        self.ids = torch.where((best.values < far)[:, None], chosen, self.ids)

    def _measure_distance(self, words: Tensor, ids: Tensor, wanted: Tensor) -> Tensor:
        """1 - cosine [n] between the encoding of these words and the wanted encoding [n, D].

        The words are given as token embeddings [n, k, d], and as ids [n, k] for text encoders that take none.
        """
        model = self.context.model
        read = model.get_embedding(model.encode_with_grad([""] * len(words), words, spell(ids, self.words)))
        return 1 - F.cosine_similarity(read.flatten(1).float(), wanted)
