"""Methods that solve for the weights that read a prompt in closed form, in all layers at once, as W = W0 M.

These weights are the keys and values of cross-attention. In joint attention, keys and values read states that change
from block to block and that the prompt alone does not determine. For such models, the context embedder, which comes
before all blocks, and the pooled embedder are solved for instead. Each has a matrix M of its own, and the solution is
exact.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from ..concept import Erasure, check_choice, check_templates
from ..edits.edit import Edit
from ..edits.provenance import read_versions
from ..functional.words import exclude_overlaps
from ..models.base import Model
from ..models.cond import POOLED, TextSpan
from ..training.trainer import Trainer
from .base import Method

Tokens = Literal["last-subject", "all"]
NONE = (
    "a closed form edits the keys and values of cross-attention to a text, and this model has none; "
    "one with attn2.to_k and attn2.to_v, as Stable Diffusion, would have worked"
)


@dataclass(frozen=True, kw_only=True)
class ClosedForm(Method):
    """A method that maps the embeddings of the target's prompts by one matrix M [d, d] and preserves other
    embeddings."""

    uses_anchor: ClassVar[bool] = True
    uses_keep: ClassVar[bool] = True
    lamb: float = 0.5
    """Weight of the term that keeps the weights near those of the base."""
    preserve_vocabulary: int = 0
    """Number of words of the model's vocabulary, the most common first, that are preserved beside the concepts to
    keep."""
    exclude: tuple[str, ...] = ()
    """Words that count as the target and are never taken from the vocabulary."""
    templates: tuple[str, ...] = ("{}",)
    """Prompt templates, all of which are edited for targets and preserved for other concepts."""

    @abstractmethod
    def solve(
        self, model: Model, erasure: Erasure, words: Sequence[str], weights: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Computes the matrix M [d, d] in fp64, by which every weight W0 becomes W0 M, and notes for the record.

        Args:
            words: words of the vocabulary that are to be preserved beside the kept concepts.
            weights: the weights [m, d] that read one part of the conditions, by name.

        For example, with `reader = self.build_reader(model, "last-subject", weights)` and
        `pairs = reader.read_pairs(erasure.targets, erasure.anchor)`, the matrix is
        `solve_shared(*pairs, reader.read_kept(words), self.lamb, 1.0, 1.0)`, and the notes are
        `{"preserved": [*words]}`.
        """

    def build_reader(self, model: Model, tokens: Tokens, weights: Mapping[str, Tensor]) -> Reader:
        """Reads concepts in the method's templates as these weights do; ValueError where the model reads no text."""
        part = next(each.part for each in model.list_text_maps() if each.weight in weights)

        def read(texts: Sequence[str]) -> Tensor:
            read = model.get_text_inputs(model.encode(texts), part)
            return read[:, None] if read.dim() == 2 else read

        def masks(texts: Sequence[str]) -> Tensor | None:
            return None if part == POOLED else model.encode(texts).mask

        return Reader(read, model.list_text_spans(part), self.templates, tokens, masks)

    def train(
        self,
        model: Model,
        erasure: Erasure,
        built: Trainer | None,
        progress: Callable[..., None] | None,
        checkpoint: str | Path | None,
    ) -> Edit:
        """Solves for all layers at once; there is nothing to resume, so the checkpoint is not used."""
        parts = find_solvable(model)
        named = (*erasure.targets, *erasure.keep, *self.exclude)
        words = exclude_overlaps(model.list_words(self.preserve_vocabulary), named)
        solved = {part: self.solve(model, erasure, words, weights) for part, weights in parts.items()}
        (notes, *_) = [notes for _, notes in solved.values()]
        apart = {"parts": {part: own for part, (_, own) in solved.items()}} if len(solved) > 1 else {}
        record = {**self.build_record(model, erasure), "versions": read_versions(), "notes": {**notes, **apart}}
        values: dict[str, Tensor] = {}
        for part, weights in parts.items():
            values |= multiply_weights(weights, solved[part][0], progress)
        return Edit(values, record)


def find_solvable(model: Model) -> dict[str, dict[str, Tensor]]:
    """The weights [m, d] that a closed form changes, by what they read: the keys and values of cross-attention.

    Where these read more than a prompt decides, the embedders of the prompt's tokens and of its pooled embedding.

    Raises:
        ValueError: there are none, as in models that are conditioned on classes or through an embedding of the time.
    """
    maps = [each for each in model.list_text_maps() if each.decided and each.rows is None]
    chosen = [each for each in maps if each.role == "cross"] or maps
    if not chosen:
        raise ValueError(NONE)
    weights = model.weights
    found: dict[str, dict[str, Tensor]] = {}
    for each in chosen:
        found.setdefault(each.part, {})[each.weight] = weights[each.weight].detach()
    return found


def find_text_projections(model: Model) -> dict[str, Tensor]:
    """The weights [m, d] of the keys and values of cross-attention, by name.

    Raises:
        ValueError: there are none, as in models that are conditioned on classes or through an embedding of the time; or
            they do not all read the same rows, which one matrix could map.
    """
    if len(parts := find_parts(model)) > 1:
        raise ValueError(f"a closed form maps what all layers read by one matrix; these read {', '.join(parts)}")
    weights = model.weights
    return {each.weight: weights[each.weight].detach() for each in model.list_text_maps() if each.role == "cross"}


def find_parts(model: Model) -> list[str]:
    """The parts that the keys and values of cross-attention read; errors are those of `find_text_projections`."""
    found = [each for each in model.list_text_maps() if each.role == "cross" and each.rows is None]
    if not found:
        raise ValueError(NONE)
    return list(dict.fromkeys(each.part for each in found))


def multiply_weights(
    weights: Mapping[str, Tensor], matrix: Tensor, progress: Callable[..., None] | None = None
) -> dict[str, Tensor]:
    """Computes W0 M for every weight [m, d], by name; `progress` is called after each.

    The result is in fp32 also for a model in half precision, because the change is often smaller than the error of
    rounding a weight to half precision.
    """
    values: dict[str, Tensor] = {}
    for name, weight in weights.items():
        value = weight.double() @ matrix.to(weight.device)
        values[name] = value.to(torch.promote_types(weight.dtype, torch.float32))
        if progress:
            progress(len(values), len(weights))
    return values


@final
@dataclass(frozen=True)
class Reader:
    """Reads concepts as rows of embeddings, in fp64."""

    encode: Callable[[Sequence[str]], Tensor]
    """Embeddings [n, L, d] of n texts."""
    spans: Sequence[TextSpan]
    """Which of the L rows each text encoder fills. Each gives rows of its own, at its own place of a concept."""
    templates: tuple[str, ...]
    tokens: Tokens
    masks: Callable[[Sequence[str]], Tensor | None] = lambda texts: None
    """Which tokens [n, L] of n texts the network attends to, None for all; the others give no rows."""

    def __post_init__(self) -> None:
        check_templates(self.templates)
        check_choice("choice of tokens", self.tokens, get_args(Tokens))

    def read_pairs(self, targets: Sequence[str], anchor: str) -> tuple[Tensor, Tensor]:
        """Rows c [n, d] of the targets and c* [n, d] of what they become: the anchor in the same template.

        Without an anchor it is the bare template, or with all tokens the empty prompt, as in UCE's two releases.
        "last-subject" gives one row a prompt, the concept's last token; "all" gives every token from there on, aligned.
        """
        return self._read_pairs(targets, anchor, from_concept=True)

    def read_aligned(self, targets: Sequence[str], anchor: str) -> tuple[Tensor, Tensor]:
        """Every token of the targets' prompts [n, d], and of what they become in the same places [n, d]."""
        return self._read_pairs(targets, anchor, from_concept=False)

    def _read_pairs(self, targets: Sequence[str], anchor: str, *, from_concept: bool) -> tuple[Tensor, Tensor]:
        asked = [(template, target) for template in self.templates for target in targets]
        bare = anchor or self.tokens == "last-subject"
        goals = [(template if bare else "{}", anchor) for template, _ in asked]
        old, new = self._read(asked), self._read(goals)
        rows: list[tuple[Tensor, Tensor]] = []
        for (c, own, i), (c_star, other, j) in zip(old, new, strict=True):
            i, j = (i, j) if from_concept else (0, 0)
            n = 1 if from_concept and self.tokens == "last-subject" else len(c) - max(i, j)
            both = own[i : i + n] & other[j : j + n]
            rows.append((c[i : i + n][both], c_star[j : j + n][both]))
        return torch.cat([c for c, _ in rows]), torch.cat([c_star for _, c_star in rows])

    def read_kept(self, concepts: Sequence[str]) -> Tensor:
        """Rows [k, d] of concepts to hold in place: their last tokens, or whole prompts where tokens is "all"."""
        asked = [(template, concept) for template in self.templates for concept in concepts]
        rows = [c[own] if self.tokens == "all" else c[i : i + 1] for c, own, i in self._read(asked)]
        return torch.cat([self.read_whole([""])[:0], *rows])

    def read_whole(self, texts: Sequence[str]) -> Tensor:
        """Every token of some texts: [n L, d], fewer where some are masked out."""
        rows, mask = self.encode(texts).double().flatten(0, 1), self.masks(texts)
        return rows if mask is None else rows[mask.flatten()]

    @property
    def rows_a_concept(self) -> int:
        """The number of rows of a concept's last tokens, over all templates."""
        return len(self.templates) * len(self.spans)

    def _read(self, asked: Sequence[tuple[str, str]]) -> list[tuple[Tensor, Tensor, int]]:
        """Embedding [L, d], mask [L] and place of the concept's last token, for each template, concept and span."""
        if not asked:
            return []
        texts = [template.format(concept) for template, concept in asked]
        embeddings, mask = self.encode(texts).double(), self.masks(texts)
        own = embeddings.new_ones(embeddings.shape[:2], dtype=torch.bool) if mask is None else mask
        heads = [template.partition("{}")[0] + concept for template, concept in asked]
        columns = []
        for span in self.spans:
            rows = slice(span.start, span.stop)
            columns.append(list(zip(embeddings[:, rows], own[:, rows], span.find_last(heads), strict=True)))
        return [each for of_text in zip(*columns, strict=True) for each in of_text]
