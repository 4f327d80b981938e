"""Words of a vocabulary that a method may use beside the targets, by two rules that differ on purpose.

`other_words` are told apart from the targets: a search may find them, pictures of them may remain. "van" is another
word than the target "van gogh". `unlike_words` share no word with what was named: a closed form holds their rows in
place, and to hold "van" would hold a part of "van gogh" that is to move.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path


def other_words(words: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The words that are none of the targets, nor a plural or a phrase with one; each once."""
    barred = {target.lower() for target in targets}
    return [word for word in dict.fromkeys(words) if not _same(word.lower(), barred)]


def naming(texts: Sequence[str], targets: Collection[str]) -> list[str]:
    """The texts, such as captions, that name a target: as it is, in the plural, or within a phrase."""
    barred = {target.lower() for target in targets}

    def forms(text: str) -> list[str]:
        words = re.findall(r"\w+", text.lower())
        return [text.lower(), " ".join(words), *words]

    return [text for text in texts if any(_same(form, barred) for form in forms(text))]


def unlike_words(words: Sequence[str], named: Collection[str]) -> list[str]:
    """The words that are none of the `named`, nor their plurals, nor phrases around them, nor a word of one."""
    barred = [form for name in named for form in (name.lower(), f"{name.lower()}s")]

    def within(part: str, phrase: str) -> bool:
        return f" {part} " in f" {phrase} "

    return [w for w in words if not any(within(bar, w.lower()) or within(w.lower(), bar) for bar in barred)]


def read_words(path: str) -> list[str]:
    """The words of a file, one a line."""
    return [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]


def _same(word: str, barred: set[str]) -> bool:
    """Whether a word is one of these, its plural, or a phrase that contains it."""
    return any(f" {b} " in f" {word} " or word in (f"{b}s", f"{b}es", b.removesuffix("s")) for b in barred)
