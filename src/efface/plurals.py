"""Writes numbers for people: things with their nouns ("1 prompt", "2,440 prompts"), and rounded numbers.

A rounded number is on the same side of each bar as the number itself: 5.04 of 5 allowed is not "5", and 2 in 10,000 are
not "0 %".
"""

from __future__ import annotations

MOST_DIGITS = 6
"""The largest number of digits after the point that keep a number from a bar; a nearer number is on the bar."""


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


def write_apart(number: float, *bars: float, digits: int = 0) -> str:
    """The number with this many digits after the point, or with more where it would else stand on or beyond a bar.

    >>> write_apart(49.8, 50), write_apart(50, 50), write_apart(49.2, 50), write_apart(0.02, 0, digits=1)
    ('49.8', '50', '49', '0.02')
    """

    def find_side(value: float, bar: float) -> int:
        return 0 if abs(value - bar) < 0.5 * 10**-MOST_DIGITS else 1 if value > bar else -1

    def is_apart(digits: int) -> bool:
        return all(find_side(round(number, digits), bar) == find_side(number, bar) for bar in bars)

    digits = next((d for d in range(digits, MOST_DIGITS) if is_apart(d)), MOST_DIGITS)
    return f"{round(number, digits) + 0.0:.{digits}f}"


def write_percent(share: float, *bars: float) -> str:
    """A share in percent, which is "0%" or "100%", or a bar, only where it is just that.

    >>> write_percent(0.62), write_percent(0.498, 0.5), write_percent(0.9996), write_percent(1)
    ('62%', '49.8%', '99.96%', '100%')
    """
    return f"{write_apart(100 * share, 0, 100, *(100 * bar for bar in bars))}%"
