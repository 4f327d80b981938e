"""The base of methods that search a vocabulary (EAP, AGE): their flags, and the search that these describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..concept import Erasure
from ..files import read_words
from ..functional.words import list_other_words
from ..models.base import Model
from ..training.vocabulary_search import SearchConfig, SearchGradient, Vocabulary, VocabularySearch
from .base import TrajectoryMethod

TOKENIZER = "tokenizer"
"""The name of the vocabulary of all tokenizer words; write `./tokenizer` for a file of this name."""


@dataclass(frozen=True, kw_only=True)
class SearchMethod(TrajectoryMethod):
    """A method that searches words near the target for one to preserve or to become; concepts to keep are
    candidates."""

    uses_keep: ClassVar[bool] = True
    vocabulary: str = ""
    """A file of candidate words of the search, one a line, or `tokenizer`: all whole words that the model's tokenizer
    has. By default the model's own vocabulary."""
    k_closest: int = 1000
    """Number of words nearest to the target among which candidates are chosen."""
    centres: int = 100
    """Number of candidates of each target, spread over their distances to it."""
    exclude: tuple[str, ...] = ()
    """Words that count as the target and are never candidates."""
    margin: float = 0.0
    """Words nearer to a target than this share of the median distance count as the target itself. This is ours: the
    papers leave none out, and 0.2 keeps near-synonyms from being preserved."""
    temperature: float = 2.0
    """Temperature of the search's Gumbel-Softmax choice."""
    search_lr: float = 1e-2
    """Adam's learning rate for the logits of the choice."""
    search_turns: int = 1
    """Number of steps of the search after each update of the weights."""
    keep_weight: float = 1.0
    """Weight of the preservation."""
    keep_paths: int = 1
    """Number of stored trajectories of each preserved prompt."""
    keep_source: Literal["same", "frozen"] = "same"
    """Whose trajectories are used for preserved prompts: those that --source and --refresh name (same), or those of the
    base, stored once (frozen)."""

    def check_mixture(self, hard: bool) -> None:
        """Raises ValueError where a mixture of all candidates would need stored trajectories."""
        if not hard and (self.refresh or "frozen" in (self.source, self.keep_source)):
            raise ValueError(
                "a mixture of all candidates has no stored trajectory: give hard=True, or source='student' with "
                "refresh=0"
            )

    def build_search(
        self,
        model: Model,
        erasure: Erasure,
        hard: bool = True,
        top: int = 0,
        gradient: SearchGradient = "straight-through",
    ) -> VocabularySearch:
        """The search over the file's words or the model's; `hard`, `top` and `gradient` as in `SearchConfig`."""
        if self.vocabulary == TOKENIZER:
            words = model.list_tokenizer_words()
        else:
            words = self._read_given(erasure) if self.vocabulary else model.list_words(3000)
        vocabulary = Vocabulary(words, erasure.keep, self.exclude, self.k_closest, self.centres, self.margin)
        return VocabularySearch(
            vocabulary, SearchConfig(self.search_lr, self.temperature, hard, self.search_turns, top, gradient)
        )

    def _read_given(self, erasure: Erasure) -> list[str]:
        """The words of the file; ValueError where a target is among them."""
        words = read_words(self.vocabulary)
        if held := sorted({*words} - {*list_other_words(words, erasure.targets)}):
            raise ValueError(
                f"{self.vocabulary} holds what is to be erased: {', '.join(held)}; a word to preserve is neither a "
                f"target ({', '.join(erasure.targets)}) nor its plural or a phrase with it"
            )
        return words
