"""T5 as a text encoder, shared by several architectures."""

from __future__ import annotations

from typing import Any

from torch import Tensor

T5 = "t5"
"""The name of T5's states in conditions."""


def tie_embeddings(encoder: Any) -> Any:
    """Gives the encoder one module of token embeddings in place of two that share a parameter; None stays None.

    A weight that is swapped in one of two modules would stay as it is in the other.
    """
    if encoder is not None:
        encoder.encoder.embed_tokens = encoder.shared
    return encoder


def read_t5(encoder: Any, tokens: Any) -> Tensor:
    """T5's states [n, length, d], with attention to the padding as well, as SD3 and FLUX.1 were trained."""
    return encoder(tokens.input_ids)[0]
