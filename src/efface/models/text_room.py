"""The number of tokens that a model's prompt has room for, by text encoder."""

from __future__ import annotations

from ..plurals import write_count
from .base import Model


def demand_room(model: Model, tokens: int) -> None:
    """Raises ValueError where a prompt has no room for this many tokens before it, or the model takes no tokens."""
    room = model.tokenize([""]).shape[1] - 2
    if tokens > room:
        raise ValueError(
            f"{write_count(tokens, 'token before the prompt does', 'tokens before the prompt do')} not fit; "
            f"{model.name} reads {room}"
        )


def fits(model: Model, text: str) -> bool:
    """Whether every text encoder reads the text to its end."""
    return all(used <= most for used, most in model.count_tokens(text).values())


def describe_search(model: Model) -> str:
    """Says which text encoder's tokens a search over token embeddings changes, and what the others read; else ""."""
    counts = model.count_tokens("")
    mine = [part for part in model.searched if part in counts]
    if not mine:
        return ""
    room = min(counts[part][1] - counts[part][0] for part in mine)
    others = [part for part in counts if part not in mine]
    rest = f"; {' and '.join(others)} reads the prompt's own words" if others else ""
    return f"tokens of {' and '.join(mine)}, of which a prompt has room for {room}{rest}"
