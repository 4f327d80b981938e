"""Finds a concept's names in prompts, and words that contain them."""

from __future__ import annotations

import re
from collections.abc import Sequence


def is_akin(word: str, name: str) -> bool:
    """Whether a word is the name or its plural; for long names also a longer form, or a beginning, of the name."""
    plain = word in (name, f"{name}s", f"{name}es")
    return plain or (min(len(word), len(name)) > 3 and (word.startswith(name) or name.startswith(word)))


def put(prompt: str, names: Sequence[str], word: str) -> str:
    """Replaces each of these names in the prompt, as whole words in any case, by `word`; "" where there is none.

    A name may stand in the plural; "an apple" becomes "a pear", and keeps no article before "the pear".
    """
    spelled = "|".join(re.escape(name) for name in sorted(filter(None, names), key=len, reverse=True))
    article, named = r"(?:\b(an?)\s+)?", rf"(?<!\w)(?:{spelled})(?:e?s)?(?!\w)"

    def instead(match: re.Match[str]) -> str:
        an = "an" if word[:1].casefold() in tuple("aeiou") else "a"
        own = word.casefold().split(" ")[0] in ("a", "an", "the")
        return f"{an if match[1].islower() else an.capitalize()} {word}" if match[1] and not own else word

    changed, found = re.subn(article + named, instead, prompt, flags=re.IGNORECASE)
    return changed if spelled and found else ""
