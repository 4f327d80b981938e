"""Closed-form edits of linear layers that read text: least squares, its adversary, a null-space constraint.

Rows are embeddings: inputs c [n, d], outputs v* [n, m], a layer's weight W0 [m, d]. Where every output is the base's
own answer to another embedding, v* = W0 c*, the edit is W = W0 M with one M [d, d] for all layers: take the identity as
the base and c* as the outputs. All work is done, and returned, in fp64.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor

Tokens = Literal["last-subject", "all"]


def least_squares(
    base: Tensor, inputs: Tensor, outputs: Tensor, kept: Tensor, lamb: float, erase: float = 1.0, preserve: float = 1.0
) -> Tensor:
    """W [m, d] that minimises erase |c W' - v*|^2 + preserve |k W' - k W0'|^2 + lamb |W - W0|^2 over all rows.

    UCE's equation 7 (Gandikota et al., WACV 2024, arXiv 2308.14761), W = (lamb W0 + erase sum v* c' + preserve sum
    W0 k k') (lamb I + erase sum c c' + preserve sum k k')^-1; TIME's (Orgad et al., ICCV 2023) where nothing is kept.
    It is written as a change of W0, so that no targets leave W0 to the bit. base [m, d], inputs [n, d], outputs [n, m],
    kept [k, d].
    """
    base, inputs, outputs, kept = base.double(), inputs.double(), outputs.double(), kept.double()
    moment = lamb * _eye(base) + erase * inputs.T @ inputs + preserve * kept.T @ kept
    wanted = erase * inputs.T @ (outputs - inputs @ base.T)
    return base + torch.linalg.solve(moment, wanted).T


def adversarial(inputs: Tensor, gram: Tensor, edit: Tensor, reg: float) -> Tensor:
    """Embeddings c' [n, d] to which the edited layers answer as the base's did to c: the target, come back.

    RECE's attack (Gong et al., ECCV 2024, arXiv 2407.12383): c' minimises sum |W c' - W0 c|^2 + reg |c'|^2 over all
    layers, so c' = (reg I + sum W'W)^-1 (sum W'W0) c. With W = W0 M this needs M = `edit` [d, d] and the layers'
    `gram` = sum W0'W0 [d, d] alone.
    """
    inputs, gram, edit = inputs.double(), gram.double(), edit.double()
    return torch.linalg.solve(reg * _eye(gram) + edit.T @ gram @ edit, edit.T @ gram @ inputs.T).T


def null_projector(kept: Tensor, threshold: float) -> Tensor:
    """The projector P [d, d] onto the directions that the kept rows [k, d] do not use.

    A direction is free where the rows' singular value is at most `threshold` times their largest. Taken from the
    second moment, whose rounding hides thresholds much under 1e-6.
    """
    moment = kept.double().T @ kept.double()
    values, vectors = torch.linalg.eigh(moment)
    free = vectors[:, values <= threshold**2 * values[-1]]
    return free @ free.T


def null_space(base: Tensor, inputs: Tensor, outputs: Tensor, projector: Tensor, lamb: float) -> Tensor:
    """W = W0 + D P [m, d] that minimises |c (W0 + D P)' - v*|^2 + lamb |D P|^2 over all rows, P the projector.

    With z = P c: D P = sum (v* - W0 c) z' (sum z z' + lamb I)^-1. Rows that P takes to zero keep their outputs. Shapes
    as in `least_squares`.
    """
    base, inputs, outputs, projector = base.double(), inputs.double(), outputs.double(), projector.double()
    seen = inputs @ projector
    moment = lamb * _eye(base) + seen.T @ seen
    return base + torch.linalg.solve(moment, seen.T @ (outputs - inputs @ base.T)).T @ projector


def _eye(like: Tensor) -> Tensor:
    return torch.eye(like.shape[1], dtype=torch.double, device=like.device)


# What a method feeds them.


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


def positive(settings: Any, *names: str) -> None:
    """Raises ValueError where one of these settings is not above zero."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(settings, name)}")


def ordinary(words: Sequence[str], named: Collection[str]) -> list[str]:
    """The words that are none of the `named`, nor their plurals, nor phrases around them, nor a word of one."""
    barred = [form for name in named for form in (name.lower(), f"{name.lower()}s")]

    def within(part: str, phrase: str) -> bool:
        return f" {part} " in f" {phrase} "

    return [w for w in words if not any(within(bar, w.lower()) or within(w.lower(), bar) for bar in barred)]


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
        for template in self.templates or ("",):
            if template.count("{}") != 1:
                raise ValueError(f"a template holds the concept as {{}}, once; got {template!r}")
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
