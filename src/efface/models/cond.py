"""Conditions: what a network reads beside the state, in named parts that can be stacked, indexed and mixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..plurals import write_count

POOLED, MASK = "pooled", "mask"


Role = Literal["cross", "embedder", "pooled"]


@dataclass(frozen=True)
class TextMap:
    """A weight by which a network reads its prompt."""

    role: Role
    """Whether it is a key or value of cross-attention, the embedder before them, or reads the pooled vector."""
    weight: str
    """Its checkpoint name."""
    part: str
    """The name of its input: a part of `Cond`, or a name that the adapter's `get_text_inputs` knows."""
    rows: slice | None = None
    """The rows of the weight [out, in] that read text, where a fused weight has others as well; None for all."""
    decided: bool = True
    """Whether its input depends on the prompt alone, and not on the state x_t."""


@dataclass(frozen=True)
class TextSpan:
    """The rows of a sequence of tokens that one text encoder fills."""

    find_last: Callable[[Sequence[str]], Sequence[int]]
    """Gives the position in the span of each text's last token; more text may follow it in the prompt."""
    start: int = 0
    stop: int | None = None


def find_last_before_end(tokenizer: Any) -> Callable[[Sequence[str]], Sequence[int]]:
    """Gives positions of the tokens before the one special token that a tokenizer puts at the end of each text.

    For an empty text that is the start token, or the end token if there is no start token.
    """
    return lambda texts: [max(0, len(ids) - 2) for ids in tokenizer(list(texts), truncation=True)["input_ids"]]


@dataclass(frozen=True, eq=False)
class Cond:
    """n rows of conditions."""

    sequence: Mapping[str, Tensor] = field(default_factory=dict)
    """For each text encoder, by its name, a vector for each token: [n, tokens, d]. Empty where no text is read."""
    mask: Tensor | None = None
    """[n, tokens] bool: which tokens the network attends to; None for all."""
    pooled: Tensor | None = None
    """[n, d]: one vector for the whole prompt, or weights over the classes of a model of classes."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """Further inputs [n, ...]: a picture's size, or what a guide or a training term adds."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every part by name: encoders, "pooled", "mask", then the extras."""
        named = {POOLED: self.pooled, MASK: self.mask}
        return {**self.sequence, **{name: part for name, part in named.items() if part is not None}, **self.extra}

    @property
    def tokens(self) -> Tensor:
        """The vectors [n, tokens, d] of the one text encoder, or of several side by side.

        Raises:
            ValueError: no text is read, or several encoders' sequences can't be concatenated.
        """
        if len(self.sequence) != 1:
            found = ", ".join(self.sequence) or "no text"
            raise ValueError(f"these conditions hold {found}; one sequence of tokens would have worked")
        return next(iter(self.sequence.values()))

    @property
    def embedding(self) -> Tensor:
        """The part [n, ...] that a prompt's embedding replaces: the tokens, or without tokens the pooled vector."""
        return next(iter(self.tensors.values()))

    @property
    def attended(self) -> Tensor:
        """`tokens`, with zeros where the network does not attend, for comparing prompts."""
        return self.tokens if self.mask is None else self.tokens * self.mask[:, :, None]

    def with_embedding(self, embedding: Tensor) -> Cond:
        """A copy whose `embedding` is this one."""
        if not self.sequence:
            return replace(self, pooled=embedding)
        name = next(iter(self.sequence))
        return replace(self, sequence={**self.sequence, name: embedding})

    def with_extra(self, extra: Mapping[str, Tensor]) -> Cond:
        """A copy with these extras [n, ...], which replace those of the same names."""
        return replace(self, extra={**self.extra, **extra})

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Cond:
        return self._map(lambda tensor: tensor[rows])

    def expand(self, n: int) -> Cond:
        """Returns n rows, from n rows or from one that is repeated."""
        if len(self) not in (1, n):
            raise ValueError(
                f"got {write_count(len(self), 'condition')} for {write_count(n, 'row')}; give one for all, or one "
                "for each"
            )
        return self._map(lambda tensor: tensor.expand(n, *tensor.shape[1:]))

    def clone(self) -> Cond:
        """A copy in memory of its own; a view of a row would keep the whole batch in memory."""
        return self._map(torch.clone)

    def detach(self) -> Cond:
        return self._map(lambda tensor: tensor.detach())

    def mix(self, weights: Tensor) -> Cond:
        """Returns k rows, each a weighted sum of the n rows by weights [k, n]; differentiable in the weights.

        A token is attended to where any row with a weight other than 0 attends to it; masks are not averaged.
        """
        used = (weights.detach() != 0).double()
        mixed = self._map(lambda tensor: torch.tensordot(weights.to(tensor), tensor, dims=1), masks=False)
        return mixed if self.mask is None else replace(mixed, mask=used.to(self.mask.device) @ self.mask.double() > 0)

    def flatten(self) -> Tensor:
        """All numbers of each row but the mask, [n, d], to compare conditions; tokens masked out count as 0."""
        parts = {name: tensor for name, tensor in self.tensors.items() if name != MASK}
        if self.mask is not None:
            parts |= {name: tensor * self.mask[:, :, None] for name, tensor in self.sequence.items()}
        return torch.cat([tensor.flatten(1) for tensor in parts.values()], dim=1)

    @staticmethod
    def cat(conds: Sequence[Cond]) -> Cond:
        def join(parts: Sequence[Tensor | None]) -> Tensor | None:
            return torch.cat([part for part in parts if part is not None]) if parts[0] is not None else None

        first = conds[0]
        return Cond(
            {name: torch.cat([cond.sequence[name] for cond in conds]) for name in first.sequence},
            join([cond.mask for cond in conds]),
            join([cond.pooled for cond in conds]),
            {name: torch.cat([cond.extra[name] for cond in conds]) for name in first.extra},
        )

    def _map(self, change: Callable[[Tensor], Tensor], *, masks: bool = True) -> Cond:
        return Cond(
            {name: change(tensor) for name, tensor in self.sequence.items()},
            change(self.mask) if self.mask is not None and masks else self.mask,
            None if self.pooled is None else change(self.pooled),
            {name: change(tensor) for name, tensor in self.extra.items()},
        )
