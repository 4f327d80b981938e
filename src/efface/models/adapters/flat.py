"""A prompt's embedding as one row of numbers, where several text encoders or a pooled embedding make it up."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..cond import Cond


def flatten_parts(cond: Cond) -> Tensor:
    """[n, d]: the tokens of every text encoder, and then what is pooled, where there is any."""
    pooled = () if cond.pooled is None else (cond.pooled,)
    return torch.cat([*(part.flatten(1) for part in cond.sequence.values()), *pooled], dim=1)


def replace_parts(cond: Cond, embedding: Tensor, name: str) -> Cond:
    """n rows of conditions with the parts that flat embeddings [n, d] hold; without pooled numbers those stay.

    One row also takes an embedding of any shape with as many numbers.

    Raises:
        ValueError: it is neither as long as the tokens nor as all that `flatten_parts` gives; `name` is the model's.
    """
    sizes = {part: tensor[0].numel() for part, tensor in cond.sequence.items()}
    given, tokens = embedding.reshape(len(cond), -1), sum(sizes.values())
    pooled = 0 if cond.pooled is None else cond.pooled.shape[1]
    if given.shape[1] not in (tokens, tokens + pooled):
        shapes = " and ".join(str(tuple(part.shape[1:])) for part in cond.sequence.values())
        whole = f", or {tokens + pooled} numbers with the pooled ones last" if pooled else ""
        raise ValueError(f"an embedding for {name} is {shapes}{whole}; got {tuple(embedding.shape)}")
    parts = zip(cond.sequence.items(), given[:, :tokens].split([*sizes.values()], dim=1), strict=True)
    own = replace(cond, sequence={part: row.reshape(old.shape) for (part, old), row in parts})
    if cond.pooled is None or given.shape[1] == tokens:
        return own
    return replace(own, pooled=given[:, tokens:])
