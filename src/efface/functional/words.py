"""Comparing names: labels with labels, names with the texts that mention them, and words of a vocabulary with both.

Every comparison goes through `concept.fold_name`: case, runs of white space and the Unicode form make no difference.

Two rules tell a vocabulary's words from the targets, and differ on purpose. `other_words` are told apart from the
targets: a search may find them, pictures of them may remain. "van" is another word than the target "van gogh".
`exclude_overlaps` leaves words that share no word with what was named: a closed form holds their rows in place, and to
hold "van" would hold a part of "van gogh" that is to move.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from ..concept import fold_name


def split_label(label: str) -> frozenset[str]:
    """The names that a label stands for, in a form that can be compared.

    Labels may list synonyms after commas, as ImageNet's do. Case, underscores, hyphens and spaces make no difference.

    >>> sorted(split_label("Chain saw, chainsaw, power_saw"))
    ['chainsaw', 'powersaw']
    """
    parts = fold_name(label).split(",")
    return frozenset(name for part in parts if (name := "".join(c for c in part if c.isalnum())))


def share_name(label: str, other: str) -> bool:
    """Do two labels share a name?

    >>> share_name("CHAIN_SAW", "chain saw, chainsaw"), share_name("dog", "hot dog")
    (True, False)
    """
    return not split_label(label).isdisjoint(split_label(other))


def ends_alike(one: str, other: str) -> bool:
    """Is one name the end of the other, as "van Gogh" is of "Vincent van Gogh"?"""
    a, b = (fold_name(name.replace("_", " ")).split() for name in (one, other))
    short = min(len(a), len(b))
    return short > 0 and a[-short:] == b[-short:]


def other_words(words: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The words that are none of the targets, nor a plural or a phrase with one; each once.

    >>> other_words(["cat", "Cats", "cat face", "category", "van"], ["cat", "van gogh"])
    ['category', 'van']
    """
    barred = {fold_name(target) for target in targets}
    return [word for word in dict.fromkeys(words) if not _is_any(fold_name(word), barred)]


def mentions(text: str, targets: Collection[str]) -> bool:
    """Does a text, such as a caption, name one of the targets: as it is, in the plural, or within a phrase?

    >>> mentions("A cat, asleep", ["cat"]), mentions("two CATS", ["cat"]), mentions("a category", ["cat"])
    (True, True, False)
    """
    barred = {fold_name(target) for target in targets}
    folded = fold_name(text)
    words = re.findall(r"\w+", folded.replace("_", " "))
    return any(_is_any(form, barred) for form in (folded, " ".join(words), *words))


def exclude_overlaps(words: Sequence[str], named: Collection[str]) -> list[str]:
    """The words that are none of the `named`, nor their plurals, nor phrases around them, nor a word of one.

    >>> exclude_overlaps(["van", "monet", "van gogh"], ["van gogh"])
    ['monet']
    """
    barred = [form for name in named for form in (fold_name(name), f"{fold_name(name)}s")]

    def within(part: str, phrase: str) -> bool:
        return f" {part} " in f" {phrase} "

    folded = {word: fold_name(word) for word in words}
    return [w for w in words if not any(within(bar, folded[w]) or within(folded[w], bar) for bar in barred)]


def _is_any(word: str, barred: set[str]) -> bool:
    """Whether a word is one of these, its plural, or a phrase that contains it."""
    return any(f" {b} " in f" {word} " or word in (f"{b}s", f"{b}es", b.removesuffix("s")) for b in barred)
