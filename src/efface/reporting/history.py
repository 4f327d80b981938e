"""Shows the notes of a fitting: its losses, the words that a search chose, and single facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..training.loss_log import NOTE
from .losses import describe_series, draw_losses, read_series
from .svg import draw_strip

LINES = 12
"""The number of words with a line of their own in the plot."""
ROWS = 30
LISTED = 60


@dataclass(frozen=True)
class Chosen:
    """How often a word was chosen, with its first and last step."""

    word: str
    count: int
    share: float
    first: int
    last: int


@dataclass(frozen=True)
class History:
    """One note: a search's choices (`strip`), the losses (`plot`), or a text."""

    title: str
    text: str = ""
    strip: Markup | None = None
    words: Sequence[Chosen] = ()
    plot: Markup | None = None


def build_histories(notes: Mapping[str, Any]) -> list[History]:
    """Every note of an edit. A list in which a word is repeated is shown as the choices of a search, in their order."""
    series = read_series(notes.get(NOTE))
    told = [History("losses of the training", describe_series(series), plot=draw_losses(series))] if series else []
    rest = {key: value for key, value in notes.items() if series is None or key != NOTE}
    return told + [h for key, value in rest.items() for h in _note(key.replace("_", " "), value)]


def _note(title: str, value: Any) -> Iterable[History]:
    if isinstance(value, Mapping):
        if all(isinstance(v, str | int | float | bool | None) for v in value.values()):
            return [History(title, ", ".join(f"{k}: {_format_value(v)}" for k, v in value.items()))]
        return [h for key, inner in value.items() for h in _note(f"{title}: {key}", inner)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        words = [w if isinstance(w, str) else _format_value(w) for w in value]
        if all(isinstance(w, str) for w in value) and len(set(words)) < len(words):
            return [_build_choices(title, words)]
        more = f" … ({len(words)} in all)" if len(words) > LISTED else ""
        return [History(title, (", ".join(words[:LISTED]) or "none") + more)]
    return [History(title, _format_value(value))]


def _build_choices(title: str, words: Sequence[str]) -> History:
    counts = Counter(words).most_common()
    last = {word: i for i, word in enumerate(words, 1)}
    table = [Chosen(word, n, n / len(words), words.index(word) + 1, last[word]) for word, n in counts[:ROWS]]
    return History(title, "", draw_strip(words, [word for word, _ in counts[:LINES]]), table)


def _format_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
