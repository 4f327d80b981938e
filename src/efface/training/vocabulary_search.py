"""A search over words: Gumbel-Softmax logits over candidates near each target, on its own clock (EAP, AGE).

c = G(pi) . T, T the embeddings of the candidates (Bui et al., arXiv 2410.15618); AGE mixes the two best (arXiv
2501.18950). The gradient reaches pi through the student's condition only. At theta = theta* the preservation loss is
zero for every candidate, so the first move learns nothing. Each row of a turn makes its own choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor

from ..functional.candidates import find_apart, k_closest, measure_distances, pick_spread
from ..functional.gumbel import gumbel_softmax
from ..functional.words import other_words
from ..models.base import Model
from ..models.cond import Cond
from .interfaces import Player, Turn
from .optim import Adam
from .trainer import Game


@dataclass(frozen=True)
class Vocabulary:
    """Which words are candidates, for each target."""

    words: Sequence[str]
    always: Sequence[str] = ()
    """Candidates whatever their distance."""
    never: Sequence[str] = ()
    """Words that count as the target."""
    k_closest: int = 1000
    centres: int = 100
    margin: float = 0.0
    """Words nearer to any target than this share of the median distance from it count as the target too."""

    def __post_init__(self) -> None:
        for name in ("k_closest", "centres"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def candidates(self, game: Game) -> dict[str, list[str]]:
        """For each target, words spread over the distances of the k closest that are apart from all targets.

        They are one near each of the k-means centres of the distance.
        """
        targets = game.erasure.targets
        open_words = other_words(self.words, (*targets, *self.never))
        if not open_words and not self.always:
            named = ", ".join(targets)
            raise ValueError(f"no candidate word is left for {named} of {len(self.words)} in the vocabulary")
        if not open_words:
            return {target: list(self.always) for target in targets}
        far = {target: _far(game.model, open_words, target) for target in targets}
        (free,) = torch.stack([find_apart(distance, self.margin) for distance in far.values()]).all(dim=0).nonzero().T
        if not len(free):
            raise ValueError(f"margin {self.margin} leaves no candidate for {', '.join(targets)}; a smaller one would")
        picked = {target: free[self._spread(distance[free], len(targets))] for target, distance in far.items()}
        return {
            target: list(dict.fromkeys([*self.always, *(open_words[i] for i in rows.tolist())]))
            for target, rows in picked.items()
        }

    def _spread(self, distance: Tensor, targets: int) -> Tensor:
        """Which of the words at these distances [n] from a target are its candidates."""
        near = k_closest(distance, self.k_closest)
        return near[pick_spread(distance[near], max(1, self.centres // targets))]


SearchGradient = Literal["straight-through", "score"]


@dataclass(frozen=True)
class Choice:
    """How the search chooses and learns."""

    lr: float
    temperature: float
    hard: bool
    turns: int
    top: int = 1
    """How many candidates a hard choice mixes, by their soft weights."""
    gradient: SearchGradient = "straight-through"
    """Through the choice's embedding, or by the loss of what was chosen alone."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"a temperature is above 0, got {self.temperature}; 2 is EAP's")
        if self.turns < 0:
            raise ValueError(f"search_turns is at least 0, got {self.turns}")
        if self.gradient not in get_args(SearchGradient):
            raise ValueError(f"no search gradient {self.gradient!r}; there are {', '.join(get_args(SearchGradient))}")
        if self.gradient == "score" and not self.single:
            raise ValueError("the score is that of one word chosen, not of a mixture: give hard=True and top=1")

    @property
    def single(self) -> bool:
        """Whether a choice is one word, whose own trajectory and predictions may have been stored."""
        return self.hard and self.top == 1


@dataclass(frozen=True)
class Pick:
    """What the search chose for the rows of a turn."""

    cond: Cond
    words: Sequence[str]
    """The leading word of each row, as a prompt."""
    chances: Tensor
    """[n]: the log-probability of each row's leading word, differentiable in pi."""


@final
class Search(Player):
    """The logits pi of every target's candidates; climbs the losses of the turns that are its own."""

    def __init__(self, vocabulary: Vocabulary, choice: Choice) -> None:
        self.vocabulary, self.choice, self.turns = vocabulary, choice, choice.turns
        self.history: list[list[int]] = []
        self.last: tuple[Turn, Pick] | None = None

    def prepare(self, game: Game) -> None:
        """Finds and encodes the candidates."""
        self.words = self.vocabulary.candidates(game)
        self.lists = list(self.words.values())
        self.start([len(words) for words in self.lists], game.model.device)
        self.tables = {
            (i, j): game.model.encode([template.format(word) for word in words])
            for i, words in enumerate(self.lists)
            for j, template in enumerate(game.settings["templates"])
        }

    def prompts(self, game: Game) -> list[str]:
        """Every candidate under every template."""
        return [form.format(word) for words in self.lists for word in words for form in game.settings["templates"]]

    def start(self, sizes: Sequence[int], device: torch.device) -> None:
        """Even logits over this many candidates of each target."""
        self.logits = [torch.full((n,), 1.0 / n, device=device, requires_grad=True) for n in sizes]
        self.adam = Adam(self.logits, self.choice.lr, maximize=True)

    def pick(self, game: Game, turn: Turn) -> Pick:
        """The choice of each row, the same for all who ask within a turn."""
        if self.last is None or self.last[0] is not turn:
            how = self.choice
            choices = [
                gumbel_softmax(self.logits[i], how.temperature, how.hard, turn.rng, how.top) for i in turn.targets
            ]
            rows = zip(turn.targets, turn.templates, choices, strict=True)
            cond = Cond.cat([self.tables[i, j].mix(choice[None]) for i, j, choice in rows])
            leading = [(i, int(choice.argmax())) for i, choice in zip(turn.targets, choices, strict=True)]
            # The largest of logits and Gumbel noise is distributed by their softmax, at any temperature.
            chances = torch.stack([self.logits[i].log_softmax(dim=0)[k] for i, k in leading])
            self.last = (turn, Pick(cond, game.prompts(turn, [self.lists[i][k] for i, k in leading]), chances))
        return self.last[1]

    def params(self) -> list[Tensor]:
        return self.logits

    def step(self, grads: Sequence[Tensor]) -> None:
        self.adam.step(grads)
        self.history.append([int(pi.argmax()) for pi in self.logits])

    def state(self) -> dict[str, Tensor]:
        return self.adam.state() | {"history": torch.tensor(self.history, dtype=torch.long)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.history = state["history"].tolist()
        self.adam.restore({key: tensor for key, tensor in state.items() if key != "history"})

    def notes(self) -> dict[str, Any]:
        """Candidates, and the favourite, which pi likes best, after each move of the search, by target."""
        favourites = {
            target: [words[move[i]] for move in self.history] for i, (target, words) in enumerate(self.words.items())
        }
        return {"candidates": self.words, "favourites": favourites}


def _far(model: Model, words: Sequence[str], target: str) -> Tensor:
    """Distance [n] of each word's embedding from the target's, on the CPU; in pieces, for embeddings are large."""
    centre = model.encode([target]).flat()[0]
    pieces = [words[i : i + 256] for i in range(0, len(words), 256)]
    return torch.cat([measure_distances(model.encode(piece).flat(), centre).cpu() for piece in pieces])
