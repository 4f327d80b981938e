"""How many tokens a model's prompt has room for."""

from __future__ import annotations

from .base import Model


def demand_room(model: Model, tokens: int) -> None:
    """Raises ValueError where this many tokens find no room before a prompt, or the model has none of their kind."""
    room = model.tokenize([""]).shape[1] - 2
    if tokens > room:
        raise ValueError(f"{tokens} tokens before the prompt do not fit; {model.name} reads {room}")
