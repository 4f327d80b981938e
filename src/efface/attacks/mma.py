"""MMA: words, none the concept's name, that the text encoder reads as the concept's prompt (after the text attack
of MMA-Diffusion, Yang et al., CVPR 2024, arXiv 2311.17516).

    max_p cos(TE'(p), TE*(prompt)),   p of `tokens` words

Greedy search by gradient, as in GCG (Zou et al., arXiv 2307.15043): the gradient at the words says which `top` others
promise most at each place; of `candidates` prompts with one word changed the best is taken. It needs the text encoder
alone, so guides do not stop it. In the authors' code: `control_length`, `topk`, `n_steps` (1000: `queries` times
`steps`), 512 candidates; tokens that contain a sensitive word are barred, here words akin to the concept's names.
Differs: the prompt so far stays where no candidate is better; the cosine is that of all that the denoiser reads, theirs
of the pooled encoding; words are one token each; a picture is drawn and judged every `steps` steps, theirs at the end.
The attack on the safety checker's eyes is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from ..concept import positive
from ..functional.adversary import steepness
from ..functional.tokens import compute_slopes, spell, substitute
from ..models.text_room import demand_room
from ..suites.spec import Row
from .base import Attack, AttackContext, Candidate, IterativeAttack, Proposals, Threat, run_rounds


@final
@dataclass(frozen=True, kw_only=True)
class MMA(Attack):
    """Searches words other than the concept's name which the text encoder encodes as it does the concept's prompt."""

    threat: ClassVar[Threat] = "encoder"
    version: ClassVar[str] = "1"
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
        positive(self, "steps", "tokens", "top", "candidates")

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
    """Every row's words [n, k] and the reading [n, D] that they are to have."""

    def __init__(self, how: MMA, context: AttackContext, rows: Sequence[Row]) -> None:
        self.how, self.context, self.rows = how, context, list(rows)
        self.words = context.list_other_words()
        model = context.model
        with context.base():
            goals = model.encode([context.put(row.prompt, context.concept) for row in rows])
        self.wanted = model.embedding_of(goals).flatten(1).float()
        self.table = model.embed(model.tokenize(self.words)[:, 1]).detach().float()
        self.rngs = [torch.Generator().manual_seed(context.rng("mma", row.id).getrandbits(62)) for row in rows]
        picks = [torch.randint(len(self.words), (how.tokens,), generator=rng) for rng in self.rngs]
        self.ids = torch.stack(picks).to(self.table.device)

    def advance(self, turn: int) -> Sequence[Candidate]:
        for _ in range(self.how.steps):
            self._substitute()
        texts = spell(self.ids, self.words)
        return [Candidate(text, row.seed) for text, row in zip(texts, self.rows, strict=True)]

    def keep(self, rows: Sequence[int]) -> None:
        left = list(rows)
        self.rows, self.rngs = [self.rows[j] for j in left], [self.rngs[j] for j in left]
        self.ids, self.wanted = self.ids[left], self.wanted[left]

    def _substitute(self) -> None:
        """The best of some prompts that differ in one word, where it is better than the one so far."""
        model = self.context.model
        with model.frozen():
            far, grad = steepness(lambda words: self._far(words, self.wanted), self.table[self.ids], model.loss_factor)
        tried = substitute(self.ids, compute_slopes(grad, self.table), self.how.top, self.how.candidates, self.rngs)
        n, m = tried.shape[:2]
        with torch.no_grad():
            parts = zip(tried.flatten(0, 1).split(256), self.wanted.repeat_interleave(m, 0).split(256), strict=True)
            distance = torch.cat([self._far(self.table[ids], wanted) for ids, wanted in parts]).reshape(n, m)
        best = distance.min(dim=1)
        chosen = tried[torch.arange(n, device=tried.device), best.indices]
        self.ids = torch.where((best.values < far)[:, None], chosen, self.ids)

    def _far(self, words: Tensor, wanted: Tensor) -> Tensor:
        """1 - cosine [n] between what these token embeddings [n, k, d] are read as and the wanted reading [n, D]."""
        model = self.context.model
        read = model.embedding_of(model.encode_with_grad([""] * len(words), words))
        return 1 - F.cosine_similarity(read.flatten(1).float(), wanted)
