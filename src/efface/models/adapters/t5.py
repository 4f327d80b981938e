"""T5 as a text encoder, which several architectures have."""

from __future__ import annotations

from typing import Any

from torch import Tensor

T5 = "t5"
"""The sequence that T5 gives."""


def tie_embeddings(encoder: Any) -> Any:
    """The encoder with one module of token embeddings, not two that share a parameter; None stays None.

    Who swaps a weight in one of two modules would leave it in the other.
    """
    if encoder is not None:
        encoder.encoder.embed_tokens = encoder.shared
    return encoder


def read_t5(encoder: Any, tokens: Any) -> Tensor:
    """T5's states [n, length, d] of tokens, which attend to the padding as well, as SD3 and FLUX.1 were trained."""
    return encoder(tokens.input_ids)[0]
