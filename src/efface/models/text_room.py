"""How many tokens a model's prompt has room for, and which text encoder's they are."""

from __future__ import annotations

from .base import Model


def demand_room(model: Model, tokens: int) -> None:
    """Raises ValueError where this many tokens find no room before a prompt, or the model has none of their kind."""
    room = model.tokenize([""]).shape[1] - 2
    if tokens > room:
        raise ValueError(f"{tokens} tokens before the prompt do not fit; {model.name} reads {room}")


def fits(model: Model, text: str) -> bool:
    """Whether every text encoder reads the text to its end."""
    return all(used <= most for used, most in model.count_tokens(text).values())


def describe_search(model: Model) -> str:
    """Which text encoder's tokens a search over token embeddings is over, and what the others read; "" for none."""
    counts = model.count_tokens("")
    mine = [part for part in model.searched if part in counts]
    if not mine:
        return ""
    room = min(counts[part][1] - counts[part][0] for part in mine)
    others = [part for part in counts if part not in mine]
    rest = f"; {' and '.join(others)} reads the prompt's own words" if others else ""
    return f"tokens of {' and '.join(mine)}, of which a prompt has room for {room}{rest}"
