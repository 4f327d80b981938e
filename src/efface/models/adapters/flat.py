"""A prompt's embedding as one flat vector, for models with several text encoders or a pooled embedding."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..cond import Cond


def flatten_parts(cond: Cond) -> Tensor:
    """Flattens conditions to [n, d]: the tokens of every text encoder, then the pooled embedding, if there is one."""
    pooled = () if cond.pooled is None else (cond.pooled,)
    return torch.cat([*(part.flatten(1) for part in cond.sequence.values()), *pooled], dim=1)


def replace_parts(cond: Cond, embedding: Tensor, name: str) -> Cond:
    """Replaces the parts of n rows of conditions by flat embeddings [n, d]; without pooled numbers those stay.

    A single row also takes an embedding of any shape that has the right number of elements.

    Raises:
        ValueError: the embedding has neither the length of the tokens nor that of `flatten_parts`; the message calls
            the model `name`.
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
