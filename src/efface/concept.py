"""What a request to erase is made of. No torch here: the command line reads this file to answer `--help`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Erasure:
    """The request: what goes, what it becomes, and what must stay."""

    targets: tuple[str, ...]
    """Concepts to erase."""
    anchor: str = ""
    """What a target becomes, for methods that need one; "" is the unconditional prompt."""
    keep: tuple[str, ...] = ()
    """Concepts to hold in place, for methods that can use them."""

    def __post_init__(self) -> None:
        for field, words in (("targets", self.targets), ("keep", self.keep)):
            if isinstance(words, str) or not isinstance(words, tuple):
                raise TypeError(f"{field} is a tuple of strings, for example ('cat',); got {words!r}")
            if any(not isinstance(word, str) or not word.strip() for word in words):
                raise ValueError(f"empty concept in {field}: {words!r}; give a word or phrase, for example 'cat'")
            if len(set(words)) < len(words):
                raise ValueError(f"{field} names a concept twice: {words!r}")
        if not self.targets:
            raise ValueError("no target: name at least one concept to erase, for example 'cat'")
        if same := [t for t in self.targets if t.strip().casefold() == self.anchor.strip().casefold()]:
            raise ValueError(f"the anchor is what is to be erased: {same[0]}; name another concept, or a broader one")
        if both := sorted(set(self.targets) & set(self.keep)):
            raise ValueError(f"to be erased and kept at once: {', '.join(both)}")

    @classmethod
    def of(cls, what: str | Erasure | Iterable[str]) -> Erasure:
        """A request from the short forms: one concept, several, or the request itself."""
        if isinstance(what, Erasure):
            return what
        return cls(targets=(what,) if isinstance(what, str) else tuple(what))


@dataclass(frozen=True)
class Prompt:
    """A prompt; `embedding` (a tensor [length, width]), where given, stands in for the text encoder's output."""

    text: str
    embedding: Any | None = None


def check_templates(templates: Sequence[str], word: str = "template") -> None:
    """Raises ValueError unless there are prompts to put a concept into, each with one {} for it; `word` names them."""
    for template in templates or ("",):
        if template.count("{}") != 1:
            raise ValueError(f"a {word} holds the concept as {{}}, once; got {template!r}")


def positive(settings: Any, *names: str) -> None:
    """Raises ValueError where one of these settings is not above zero."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(settings, name)}")
