"""The request to erase, and how names are compared everywhere.

This file imports no torch, because the command line imports it for `--help`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Erasure:
    """The request: what is erased, what it becomes, and what is kept.

    >>> Erasure(("cat",), anchor="dog", keep=("tiger",)).targets
    ('cat',)

    Raises TypeError or ValueError where a concept is empty, named twice, or both erased and kept, or where the anchor
    is a target.
    """

    targets: tuple[str, ...]
    """Concepts to erase."""
    anchor: str = ""
    """What a target becomes, for methods that use an anchor; "" is the unconditional prompt."""
    keep: tuple[str, ...] = ()
    """Concepts to keep, for methods that can use them."""

    def __post_init__(self) -> None:
        for field, words in (("targets", self.targets), ("keep", self.keep)):
            if isinstance(words, str) or not isinstance(words, tuple):
                raise TypeError(f"{field} is a tuple of strings, for example ('cat',); got {words!r}")
            if any(not isinstance(word, str) or not fold_name(word) for word in words):
                raise ValueError(f"empty concept in {field}: {words!r}; give a word or phrase, for example 'cat'")
            if len({fold_name(word) for word in words}) < len(words):
                raise ValueError(f"{field} names a concept twice: {words!r}")
        if not self.targets:
            raise ValueError("no target: name at least one concept to erase, for example 'cat'")
        if same := [t for t in self.targets if fold_name(t) == fold_name(self.anchor)]:
            raise ValueError(f"the anchor is what is to be erased: {same[0]}; name another concept, or a broader one")
        kept = {fold_name(word) for word in self.keep}
        if both := sorted(target for target in self.targets if fold_name(target) in kept):
            raise ValueError(f"to be erased and kept at once: {', '.join(both)}; leave each out of one of the two")

    @classmethod
    def of(cls, what: str | Erasure | Iterable[str]) -> Erasure:
        """Makes a request from one concept, from several, or from a request itself."""
        if isinstance(what, Erasure):
            return what
        return cls(targets=(what,) if isinstance(what, str) else tuple(what))


@dataclass(frozen=True)
class Prompt:
    """A prompt; an `embedding`, a tensor [length, width], replaces the text encoder's output."""

    text: str
    embedding: Any | None = None


def fold_name(name: str) -> str:
    """The form in which names are compared: Unicode NFKC, without case, and each run of white space one blank.

    Invisible characters (zero-width blanks, soft hyphens) are left out.

    >>> fold_name("  Van\\u00a0 GO\\u200bGH ")
    'van gogh'
    """
    once = unicodedata.normalize("NFKC", name).casefold()
    seen = once if once.isascii() else "".join(c for c in once if unicodedata.category(c) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", seen).split())


def check_phrases(words: Iterable[str], flag: str, known: Collection[str] = ()) -> None:
    """Raises ValueError for a phrase with a comma, which usually means several concepts.

    Args:
        words: targets, or concepts to keep.
        flag: the command line's name for one of them, such as "target".
        known: names that may hold a comma, such as the labels of a model's classes.
    """
    whole = {fold_name(name) for name in known}
    for word in words:
        parts = [part.strip() for part in word.split(",") if part.strip()]
        if "," in word and fold_name(word) not in whole:
            flags = " ".join(f"--{flag} {repr(part) if ' ' in part else part}" for part in parts)
            raise ValueError(
                f"{word!r} would be one phrase, not {len(parts)} concepts; repeat the flag, as in {flags}, or give "
                "several strings in Python"
            )


def check_templates(templates: Sequence[str], word: str = "template") -> None:
    """Raises ValueError unless there are prompts to put a concept into, each with one {} for it; `word` names them.

    Other braces are refused, because `str.format` would read them.
    """
    for template in templates or ("",):
        if template.count("{}") != 1 or set(template.replace("{}", "")) & set("{}"):
            raise ValueError(f"a {word} holds the concept as {{}}, once, and no other braces; got {template!r}")


def check_choice(name: str, given: Any, known: Collection[Any]) -> None:
    """Raises ValueError where a value is none of those that there are."""
    if given not in known:
        raise ValueError(f"no {name} {given!r}; there are {', '.join(map(str, known))}")


def check_choices(settings: Any) -> None:
    """Raises ValueError where a field of a dataclass that is one of a few values (a Literal) has another value."""
    try:
        hints = get_type_hints(type(settings))
    except NameError:  # a class of another package may name types that are imported for type checkers alone
        return
    for field in fields(settings):
        if get_origin(hints[field.name]) is Literal:
            check_choice(field.name.replace("_", " "), getattr(settings, field.name), get_args(hints[field.name]))


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a plain type, or one of a few; True for any other type."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return kind not in (int, str, bool) or type(value) is kind


def require_positive(settings: Any, *names: str) -> None:
    """Raises ValueError where one of these settings is not above zero."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(settings, name)}")
