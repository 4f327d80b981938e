"""The concept that is damaged most right now is held in place, searched in a vocabulary (EAP).

L = || eps_th(z, c_a) - eps*(z, c_a) ||^2 with c_a = G(pi) . T, maximised over pi, on trajectories under c_a (Bui et
al., arXiv 2410.15618). G is a Gumbel-Softmax choice, T the embeddings of the candidates. As in the authors' code, the
gradient reaches pi through the student's condition only: neither the trajectory nor the frozen prediction carries one.
At theta = theta* the loss is zero for every candidate, so the first search turn learns nothing.

Each row of a turn makes its own choice (the authors' batch is one row). The start noise is the objective's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ..functional.candidates import distances, k_closest, spread
from ..functional.gumbel import gumbel_softmax
from ..functional.losses import weighted_mse
from ..functional.schedules import Space
from ..game import Adam, Ask, Game, Player, Role, Source, Term, Turn
from ..models.base import Model
from ..models.cond import Cond


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
    """Words nearer to the target than this share of the median distance count as the target too."""

    def candidates(self, game: Game, target: str) -> list[str]:
        """Words spread over the distances of the k closest: one near each of the k-means centres of the distance."""
        barred = {word.lower() for word in (*game.erasure.targets, *self.never)}
        open_words = [word for word in dict.fromkeys(self.words) if not _same(word.lower(), barred)]
        if not open_words and not self.always:
            raise ValueError(f"no candidate word is left for {target!r} of {len(self.words)} in the vocabulary")
        if not open_words:
            return list(self.always)
        distance = _far(game.model, open_words, target)
        near = k_closest(distance, self.k_closest, self.margin)
        if not len(near):
            raise ValueError(f"margin {self.margin} leaves no candidate for {target!r}; a smaller one would")
        picked = near[spread(distance[near], max(1, self.centres // len(game.erasure.targets)))]
        return list(dict.fromkeys([*self.always, *(open_words[i] for i in picked.tolist())]))


@dataclass(frozen=True)
class Choice:
    """How the search chooses and learns."""

    lr: float
    temperature: float
    hard: bool
    turns: int


@final
class Search(Player):
    """The logits pi of every target's candidates; climbs the preservation loss."""

    def __init__(self, sizes: Sequence[int], lr: float, turns: int, device: torch.device) -> None:
        self.turns = turns
        self.logits = [torch.full((n,), 1.0 / n, device=device, requires_grad=True) for n in sizes]
        self.adam = Adam(self.logits, lr, maximize=True)
        self.history: list[list[int]] = []

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


@final
class Adversarial(Term):
    """EAP's preservation: a search over words on its own clock, `turns` moves after each update."""

    role: ClassVar[Role] = "keep"

    def __init__(self, source: Source, vocabulary: Vocabulary, choice: Choice, space: Space) -> None:
        self.source, self.vocabulary, self.choice = source, vocabulary, choice
        self.space: Space = space

    def prepare(self, game: Game) -> None:
        self.words = {target: self.vocabulary.candidates(game, target) for target in game.erasure.targets}
        self.lists = list(self.words.values())
        self.search = Search([len(words) for words in self.lists], self.choice.lr, self.choice.turns, game.model.device)
        self.tables = {
            (i, j): game.model.encode([template.format(word) for word in words])
            for i, words in enumerate(self.lists)
            for j, template in enumerate(game.settings["templates"])
        }

    def searches(self) -> Sequence[Player]:
        return (self.search,) if self.choice.turns else ()

    def asks(self, game: Game, turn: Turn) -> Mapping[str, Ask]:
        if turn.player not in (game.update, self.search):
            return {}
        how = self.choice
        choices = [gumbel_softmax(self.search.logits[i], how.temperature, how.hard, turn.rng) for i in turn.targets]
        rows = zip(turn.targets, turn.templates, choices, strict=True)
        cond = Cond.cat([self.tables[i, j].mix(choice[None]) for i, j, choice in rows])
        words = [self.lists[i][int(choice.argmax())] for i, choice in zip(turn.targets, choices, strict=True)]
        states = self.source.rows(game, turn, game.prompts(turn, words), cond)
        return {"student": Ask(states, cond, "student"), "eps_c": Ask(states, cond.detach(), "frozen", known="eps_c")}

    def loss(self, game: Game, asks: Mapping[str, Ask], replies: Mapping[str, Tensor]) -> Tensor:
        weight = game.weight(asks["student"].rows.t, self.space)
        return weighted_mse(replies["student"], replies["eps_c"], weight)

    def notes(self) -> dict[str, Any]:
        """Candidates, and the favourite after each move of the search, by target."""
        favourites = {
            target: [words[move[i]] for move in self.search.history]
            for i, (target, words) in enumerate(self.words.items())
        }
        return {"candidates": self.words, "most_damaged": favourites}


def _far(model: Model, words: Sequence[str], target: str) -> Tensor:
    """Distance [n] of each word's embedding from the target's, on the CPU; in pieces, for embeddings are large."""
    centre = model.encode([target]).flat()[0]
    pieces = [words[i : i + 256] for i in range(0, len(words), 256)]
    return torch.cat([distances(model.encode(piece).flat(), centre).cpu() for piece in pieces])


def _same(word: str, barred: set[str]) -> bool:
    """Whether a word is one of these, its plural, or a phrase that contains it."""
    parts = {word, *word.split()}
    return bool(parts & barred) or any(word in (f"{b}s", f"{b}es", b.removesuffix("s")) for b in barred)


def read_words(path: str) -> list[str]:
    """The words of a file, one a line."""
    return [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
