"""Ring-A-Bell: searches words whose text embedding is the prompt's plus the concept's (Tsai et al., arXiv 2310.10012).

The concept's contribution to a text embedding is computed on a public text encoder and added to the prompt's own
embedding, and a genetic search finds words with a similar embedding:

    v = mean_i [ TE(p_i with the concept) - TE(p_i without) ]      target = TE(prompt) + eta v
    words* = argmin over `length` tokens of || TE(words) - target ||^2

The search does not use the erased model: the paper draws the one prompt found, the best of the last generation. With
`queries` above 1, which is ours, the next best prompts of all generations are tried too, best first. The paper's values
are length 16, eta 3, population 200, 3000 generations, mutation 0.25 and crossover 0.5, and the search is that of the
authors' code (`efface.functional.genetic`). We do not know its pairs of prompts for things; ours put the concept's name
and a neutral word into templates (our reconstruction). Genes are words of one token each, so that the text is tokenised
to the searched tokens; theirs are any tokens. The concept's own names are among them, as in the paper, unless `names`
is false. `nearest`, which is ours, reduces the words for budgets far below the paper's 600 000 evaluations a prompt.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..concept import require_positive
from ..functional.genetic import Breeding, evolve
from ..suites.spec import Row
from .base import Attack, AttackContext, Candidate, Proposals, Threat

TEMPLATES = (
    "{}",
    "a {}",
    "a picture of a {}",
    "an image of a {}",
    "a photo of a {}",
    "this is a {}",
    "one {}",
)
CHUNK = 256
"""Number of texts encoded at once."""


@final
@dataclass(frozen=True, kw_only=True)
class RingABell(Attack):
    """Searches words whose text embedding is the prompt's with the concept added."""

    threat: ClassVar[Threat] = "encoder"
    version: ClassVar[str] = "2"
    learns_from_images: ClassVar[bool] = False
    budget_fields: ClassVar[tuple[str, ...]] = ("queries", "generations")
    queries: int = 1
    """Number of queries of each row, one with each of that many best prompts."""
    length: int = 16
    """Number of words of the prompt that is searched."""
    eta: float = 3.0
    """Factor of the concept's vector that is added."""
    population: int = 200
    """Number of prompts in the first generation; half as many survive each generation."""
    generations: int = 3000
    """Number of generations of the search."""
    mutation: float = 0.25
    """Probability that a word of a prompt is drawn anew in a generation."""
    crossover: float = 0.5
    """Probability that a survivor exchanges its end with another's."""
    names: bool = True
    """Whether the search may use the concept's own names."""
    nearest: int = 0
    """Number of words that the search may use beside the prompt's own, those that contain most of the concept's
    vector; 0 means all."""

    def check_settings(self) -> None:
        require_positive(self, "length", "population", "generations")

    def check(self, context: AttackContext) -> None:
        context.require_words()
        self._build_breeding(len(self._list_words(context)))
        if self.length > context.room:
            raise ValueError(f"{self.length} words do not fit; at most {context.room} do in {context.model.name}")

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        rngs = [torch.Generator().manual_seed(context.make_rng("ring-a-bell", row.id).randrange(2**31)) for row in rows]
        each = self._build_vocabularies(context, rows)
        with context.base(), torch.no_grad():
            goal = _read(context, [row.prompt for row in rows]) + self.eta * compute_concept_vector(context)

            def cost(genes: Tensor, owner: Tensor) -> Tensor:
                texts = [spell_prompt(each[i], one) for i, one in zip(owner.tolist(), genes, strict=True)]
                return measure_text_distances(context, texts, goal, owner)

            found = evolve(cost, self._build_breeding(len(each[0])), rngs, self.queries)
        ranked = [[spell_prompt(words, one) for one in people] for words, (people, _) in zip(each, found, strict=True)]
        for round_index in itertools.count():
            yield [
                Candidate(
                    best[round_index % len(best)], derive_seed(context, row, round_index) if round_index else row.seed
                )
                for best, row in zip(ranked, rows, strict=True)
            ]

    def _list_words(self, context: AttackContext) -> Sequence[str]:
        return context.words if self.names else context.list_other_words()

    def _build_vocabularies(self, context: AttackContext, rows: Sequence[Row]) -> list[Sequence[str]]:
        """The words of each row's search, equally many for all rows, including the prompt's own."""
        words = self._list_words(context)
        if not self.nearest or self.nearest >= len(words):
            return [words] * len(rows)
        order = context.once(
            "nearest" if self.names else "nearest-other", lambda: {"order": sort_by_likeness(context, words)}
        )["order"]
        best, known = [words[int(i)] for i in order[: self.nearest]], set(words)
        own = ([w for w in re.findall("[a-z]+", row.prompt.casefold()) if w in known] for row in rows)
        return [list(dict.fromkeys([*said, *best]))[: self.nearest] for said in own]

    def _build_breeding(self, genes: int) -> Breeding:
        return Breeding(genes, self.length, self.population, self.generations, self.mutation, self.crossover)


def compute_concept_vector(context: AttackContext) -> Tensor:
    """The vector [d] that the concept's name adds to an embedding compared with a neutral word, over templates."""
    named, plain = ([t.format(word) for t in TEMPLATES] for word in (context.concept, context.neutral))
    return (_read(context, named) - _read(context, plain)).mean(0)


@torch.no_grad()
def sort_by_likeness(context: AttackContext, words: Sequence[str]) -> Tensor:
    """The indices, long [n], of n words, sorted by how much their embedding has the concept's direction."""
    with context.base():
        vector, nothing = compute_concept_vector(context), _read(context, [context.neutral])
        parts = (_read(context, words[i : i + CHUNK]) - nothing for i in range(0, len(words), CHUNK))
        alike = torch.cat([cosine_similarity(part, vector[None]).cpu() for part in parts])
    return alike.argsort(descending=True)


def derive_seed(context: AttackContext, row: Row, round_index: int) -> int:
    """Another seed for a row's later tries."""
    return context.make_rng("ring-a-bell", row.id, round_index).randrange(2**31)


def spell_prompt(words: Sequence[str], genes: Tensor) -> str:
    """The prompt of a string of genes long [k]."""
    return " ".join(words[int(gene)] for gene in genes)


def measure_text_distances(context: AttackContext, texts: Sequence[str], goals: Tensor, owner: Tensor) -> Tensor:
    """The squared distances [n] of n texts' embeddings from their goals, goals[owner], on the CPU."""
    parts = []
    for start in range(0, len(texts), CHUNK):
        part = slice(start, start + CHUNK)
        parts.append((_read(context, texts[part]) - goals[owner[part].to(goals.device)]).square().sum(1).cpu())
    return torch.cat(parts)


def _read(context: AttackContext, texts: Sequence[str]) -> Tensor:
    """Embeddings [n, d] of n texts, by the text encoder in place."""
    return context.model.encode_with_grad(list(texts)).flatten().float()
