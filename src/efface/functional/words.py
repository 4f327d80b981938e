"""Compares names: labels with labels, names with texts that mention them, and words of a vocabulary with both.

Every comparison goes through `concept.fold_name`: case, runs of white space and the Unicode form make no difference.
Within a text, a name is also found in the singular and in the plural (of English), whatever marks stand in it or around
it ("T-shirt." names the "t shirt"), and in scripts that put no blanks between words wherever it stands.

Two rules tell a vocabulary's words from the targets, and differ on purpose. `other_words` are told apart from the
targets: a search may find them, pictures of them may remain. "van" is another word than the target "van gogh".
`exclude_overlaps` leaves words that share no word with what was named: a closed form holds their rows in place, and to
hold "van" would hold a part of "van gogh" that is to move.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Sequence

from ..concept import fold_name

IRREGULAR = {
    **{"man": "men", "woman": "women", "child": "children", "person": "people", "mouse": "mice", "goose": "geese"},
    **{"foot": "feet", "tooth": "teeth", "ox": "oxen"},
}
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Letters of scripts that put no blanks between words, or none between a word and its particles: Thai, Lao, Burmese,
Khmer, Japanese, Chinese and Korean."""


def split_label(label: str) -> frozenset[str]:
    """The names that a label stands for, in a form that can be compared.

    Labels may list synonyms after commas, as ImageNet's do. Case, underscores, hyphens and spaces make no difference.

    >>> sorted(split_label("Chain saw, chainsaw, power_saw"))
    ['chainsaw', 'powersaw']
    """
    parts = fold_name(label).split(",")
    return frozenset(name for part in parts if (name := "".join(c for c in part if c.isalnum())))


def share_name(label: str, other: str) -> bool:
    """Whether two labels share a name.

    >>> share_name("CHAIN_SAW", "chain saw, chainsaw"), share_name("dog", "hot dog")
    (True, False)
    """
    return not split_label(label).isdisjoint(split_label(other))


def ends_alike(one: str, other: str) -> bool:
    """Whether one name is the end of the other, as "van Gogh" is of "Vincent van Gogh"."""
    a, b = (fold_name(name.replace("_", " ")).split() for name in (one, other))
    short = min(len(a), len(b))
    return short > 0 and a[-short:] == b[-short:]


def list_other_words(words: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The words that are none of the targets, in either number, nor a phrase with one; each once.

    >>> list_other_words(["cat", "Cats", "cat face", "category", "van"], ["cat", "van gogh"])
    ['category', 'van']
    """
    return [word for word in dict.fromkeys(words) if not mentions(word, targets)]


def mentions(text: str, targets: Collection[str]) -> bool:
    """Whether a text, such as a caption, names one of the targets: as it is, in another number, or within a phrase.

    >>> mentions("A cat, asleep", ["cat"]), mentions("two CATS", ["cat"]), mentions("a category", ["cat"])
    (True, True, False)
    >>> mentions("Two garbage trucks.", ["garbage truck"]), mentions("knives", ["knife"])
    (True, True)
    """
    forms, lengths, unspaced = _list_all_forms(tuple(targets))
    folded = fold_name(text)
    for words in (folded.split(), _spell(folded).split()):
        if any(" ".join(words[i : i + n]) in forms for n in lengths for i in range(len(words))):
            return True
    return any(name in folded for name in unspaced)


def exclude_overlaps(words: Sequence[str], named: Collection[str]) -> list[str]:
    """The words that are none of the `named`, in either number, nor phrases around them, nor a word of one.

    >>> exclude_overlaps(["van", "monet", "van gogh"], ["van gogh"])
    ['monet']
    """
    barred = [form for name in named for form in list_forms(name)]

    def within(part: str, phrase: str) -> bool:
        return f" {part} " in f" {phrase} "

    folded = {word: fold_name(word) for word in words}
    return [w for w in words if not any(within(bar, folded[w]) or within(folded[w], bar) for bar in barred)]


@functools.lru_cache(2**14)
def list_forms(name: str) -> tuple[str, ...]:
    """The spellings of a name in folded texts: itself, its words without marks between them, and the words joined.

    Words are joined where there were marks. Each spelling comes in the singular and in the plural.

    >>> list_forms("T-shirt")
    ('t-shirt', 't-shirts', 't-shirtes', 't shirt', 't shirts', 't shirtes', 'tshirt', 'tshirts', 'tshirtes')
    """
    folded = fold_name(name)
    spelled = _spell(folded)
    joined = "".join(_spell(part).replace(" ", "") + " " for part in folded.split()).strip()
    return tuple(dict.fromkeys(form for dress in (folded, spelled, joined) if dress for form in _list_numbers(dress)))


@functools.lru_cache(256)
def _list_all_forms(names: tuple[str, ...]) -> tuple[frozenset[str], frozenset[int], tuple[str, ...]]:
    """All forms of these names, their numbers of words, and the names in scripts without blanks between words."""
    forms = frozenset(form for name in names for form in list_forms(name))
    return (
        forms,
        frozenset(len(form.split()) for form in forms),
        tuple(fold_name(name) for name in names if UNSPACED.search(name)),
    )


def _spell(folded: str) -> str:
    """The words of a text, with one blank in place of the marks between them."""
    return " ".join(re.findall(r"\w+", folded.replace("_", " ")))


def _list_numbers(name: str) -> Iterable[str]:
    """A name in the English singular and plural, whichever it is in; of several words the last one changes."""
    first, blank, last = name.rpartition(" ")
    return [f"{first}{blank}{form}" for form in (last, *_list_plurals(last), *_list_singulars(last))]


def _list_plurals(word: str) -> list[str]:
    found = [f"{word}s", f"{word}es"]
    if word.endswith("y"):
        found.append(f"{word[:-1]}ies")
    if word.endswith(("f", "fe")):
        found.append(f"{word.removesuffix('e')[:-1]}ves")
    return found + [word[: -len(one)] + many for one, many in IRREGULAR.items() if _ends_in(word, one)]


def _list_singulars(word: str) -> list[str]:
    found = [word[:-1]] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 2 else []
    if word.endswith(("ches", "shes", "xes", "zes", "oes")):
        found.append(word[:-2])
    if word.endswith("ies"):
        found.append(f"{word[:-3]}y")
    if word.endswith("ves"):
        found += [f"{word[:-3]}f", f"{word[:-3]}fe"]
    return found + [word[: -len(many)] + one for one, many in IRREGULAR.items() if _ends_in(word, many)]


def _ends_in(word: str, noun: str) -> bool:
    """Whether a word is this noun, or a compound of it; short nouns have no compounds here, for a "box" is no ox."""
    return word == noun or (noun in ("man", "men", "woman", "women") and word.endswith(noun))
