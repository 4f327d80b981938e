"""Writes numbers of things in words: "1 prompt", "2,440 prompts"."""

from __future__ import annotations


def write_count(n: int, thing: str, things: str = "") -> str:
    """The number with its noun, which may bring a verb along.

        >>> write_count(1, "prompt"), write_count(2440, "prompt"), write_count(0, "query", "queries")
        ('1 prompt', '2,440 prompts', '0 queries')
        >>> write_count(1, "picture has", "pictures have")
        '1 picture has'

    Args:
        n: the number.
        thing: what follows the number 1.
        things: what follows any other number; by default `thing` with an s.
    """
    return f"{n:,} {thing if n == 1 else things or f'{thing}s'}"
