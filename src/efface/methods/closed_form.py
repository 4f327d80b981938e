"""Methods that solve for the keys and values of cross-attention in closed form, all layers at once, as W = W0 M."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from ..concept import Erasure, check_templates
from ..edits.edit import Edit
from ..edits.provenance import versions
from ..functional.words import unlike_words
from ..models.base import Model
from ..training.trainer import Game
from .base import Method

Tokens = Literal["last-subject", "all"]


@dataclass(frozen=True, kw_only=True)
class ClosedForm(Method):
    """A method that maps the rows of a prompt by one matrix, and preserves other rows."""

    uses_anchor: ClassVar[bool] = True
    uses_keep: ClassVar[bool] = True
    lamb: float = 0.5
    """Weight of staying near the base weights."""
    preserve_vocabulary: int = 0
    """Words of the model's vocabulary, common ones first, that are preserved beside the kept concepts."""
    exclude: tuple[str, ...] = ()
    """Words that count as the target and are never taken from the vocabulary."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts around a concept, all of which are edited and preserved."""

    @abstractmethod
    def solve(
        self, model: Model, erasure: Erasure, words: Sequence[str], weights: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Any]]:
        """The matrix M [d, d], and notes for the record; `words` of the vocabulary may be preserved."""

    def reader(self, model: Model, tokens: Tokens) -> Reader:
        """Reads concepts in the method's templates; ValueError where the model reads no text."""
        tokenizer = getattr(model, "tokenizer", None)
        return Reader(lambda texts: model.encode(texts).tensors["tokens"], tokenizer, self.templates, tokens)

    def train(
        self,
        model: Model,
        erasure: Erasure,
        built: Game | None,
        progress: Callable[..., None] | None,
        checkpoint: str | Path | None,
    ) -> Edit:
        """Linear solves for all layers at once; there is nothing to resume, so the checkpoint stays unused."""
        weights = text_projections(model.weights)
        named = (*erasure.targets, *erasure.keep, *self.exclude)
        words = unlike_words(model.vocabulary(self.preserve_vocabulary), named)
        matrix, notes = self.solve(model, erasure, words, weights)
        record = {**self.record(model, erasure), "versions": versions(), "notes": notes}
        return Edit(answers(weights, matrix, progress), record)


def text_projections(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights [m, d] of the keys and values of cross-attention, by name.

    Raises:
        ValueError: there are none, as in models that are conditioned on classes or through an embedding of the time.
    """
    found = re.compile(r"\.attn2\.to_[kv]\.weight$")
    chosen = {name: weight.detach() for name, weight in weights.items() if found.search(name)}
    if not chosen:
        raise ValueError(
            "a closed form edits the keys and values of cross-attention to a text, and this model has none; "
            "one with attn2.to_k and attn2.to_v, as Stable Diffusion, would have worked"
        )
    return chosen


def answers(
    weights: Mapping[str, Tensor], matrix: Tensor, progress: Callable[..., None] | None = None
) -> dict[str, Tensor]:
    """W0 M for every weight [m, d], rounded once, to the weight's own dtype; progress is told of each."""
    values: dict[str, Tensor] = {}
    for name, weight in weights.items():
        values[name] = (weight.double() @ matrix.to(weight.device)).to(weight.dtype)
        if progress:
            progress(len(values), len(weights))
    return values


@final
@dataclass(frozen=True)
class Reader:
    """Reads concepts as rows of embeddings, in fp64."""

    encode: Callable[[Sequence[str]], Tensor]
    """Embeddings [n, L, d] of n texts."""
    tokenizer: Any
    """CLIP's, or another that ends a text with one special token."""
    templates: tuple[str, ...]
    tokens: Tokens

    def __post_init__(self) -> None:
        check_templates(self.templates)
        if self.tokens not in get_args(Tokens):
            raise ValueError(f"no choice of tokens {self.tokens!r}; there are {', '.join(get_args(Tokens))}")
        if self.tokenizer is None:
            raise ValueError("this model has no tokenizer to find a concept's last token with; one of texts has")

    def pairs(self, targets: Sequence[str], anchor: str) -> tuple[Tensor, Tensor]:
        """Rows c [n, d] of the targets and c* [n, d] of what they become: the anchor in the same template, or "".

        "last-subject" gives one row a prompt, the concept's last token; "all" gives every token from there on, aligned.
        """
        asked = [(template, target) for template in self.templates for target in targets]
        goals = [(template if anchor else "{}", anchor) for template, _ in asked]
        old, new = self._read(asked), self._read(goals)
        rows: list[tuple[Tensor, Tensor]] = []
        for (c, i), (c_star, j) in zip(old, new, strict=True):
            n = 1 if self.tokens == "last-subject" else len(c) - max(i, j)
            rows.append((c[i : i + n], c_star[j : j + n]))
        return torch.cat([c for c, _ in rows]), torch.cat([c_star for _, c_star in rows])

    def kept(self, concepts: Sequence[str]) -> Tensor:
        """Rows [k, d] of concepts to hold in place: their last tokens, or whole prompts where tokens is "all"."""
        asked = [(template, concept) for template in self.templates for concept in concepts]
        rows = [c if self.tokens == "all" else c[i : i + 1] for c, i in self._read(asked)]
        return torch.cat([self.whole([""])[:0], *rows])

    def whole(self, texts: Sequence[str]) -> Tensor:
        """Every token of some texts: [n L, d]."""
        return self.encode(texts).double().flatten(0, 1)

    def _read(self, asked: Sequence[tuple[str, str]]) -> list[tuple[Tensor, int]]:
        """Embedding [L, d] and place of the concept's last token, for each template and concept."""
        if not asked:
            return []
        embeddings = self.encode([template.format(concept) for template, concept in asked]).double()
        heads = [template.partition("{}")[0] + concept for template, concept in asked]
        # Before the end token; the start token where the concept is empty.
        lengths = [len(ids) for ids in self.tokenizer(heads, truncation=True)["input_ids"]]
        return [(c, length - 2) for c, length in zip(embeddings, lengths, strict=True)]
