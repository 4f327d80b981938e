"""Searches over words by Gumbel-Softmax logits of candidates near each target, with steps of its own (EAP, AGE).

c = G(pi) . T, where T are the embeddings of the candidates (Bui et al., arXiv 2410.15618); AGE's soft choice mixes the
five best (arXiv 2501.18950). The gradient reaches pi only through the student's condition. At theta = theta* the
preservation loss is zero for every candidate, so the search learns nothing in its first step. Each row of a step has
its own choice. Only the logits of targets that the step's rows erase change, and Adam's momentum of the others stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor

from ..concept import check_choice
from ..functional.candidates import find_apart, find_k_closest, measure_distances, pick_spread
from ..functional.gumbel import gumbel_softmax
from ..functional.words import list_other_words
from ..models.base import Model
from ..models.cond import Cond
from .interfaces import Context, Learner, Step
from .optim import Adam32bit


@dataclass(frozen=True)
class Vocabulary:
    """The words, and how the candidates for each target are chosen among them."""

    words: Sequence[str]
    always: Sequence[str] = ()
    """Words that are candidates at any distance."""
    never: Sequence[str] = ()
    """Words that mean the target and are no candidates."""
    k_closest: int = 1000
    centres: int = 100
    """Number of candidates of each target, apart from `always`."""
    margin: float = 0.0
    """Words nearer to any target than this share of the median distance from it are no candidates either."""

    def __post_init__(self) -> None:
        for name in ("k_closest", "centres"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def find_candidates(self, context: Context) -> dict[str, list[str]]:
        """The candidates of each target: of the `k_closest` words that are no target's, one near each centre.

        The centres are those of k-means on the words' distances from the target, so that both near and far words are
        candidates.

        Raises:
            ValueError: no word is left.
        """
        targets = context.erasure.targets
        open_words = list_other_words(self.words, (*targets, *self.never))
        if not open_words and not self.always:
            named = ", ".join(targets)
            raise ValueError(f"no candidate word is left for {named} of {len(self.words)} in the vocabulary")
        if not open_words:
            return {target: list(self.always) for target in targets}
        far = {target: _measure_distances(context.model, open_words, target) for target in targets}
        (free,) = torch.stack([find_apart(distance, self.margin) for distance in far.values()]).all(dim=0).nonzero().T
        if not len(free):
            raise ValueError(f"margin {self.margin} leaves no candidate for {', '.join(targets)}; a smaller one would")
        picked = {target: free[self._spread(distance[free])] for target, distance in far.items()}
        return {
            target: list(dict.fromkeys([*self.always, *(open_words[i] for i in rows.tolist())]))
            for target, rows in picked.items()
        }

    def _spread(self, distance: Tensor) -> Tensor:
        """Indices of a target's candidates among the words at these distances [n] from it."""
        near = find_k_closest(distance, self.k_closest)
        return near[pick_spread(distance[near], self.centres)]


SearchGradient = Literal["straight-through", "score"]


@dataclass(frozen=True)
class SearchConfig:
    """How the search chooses words, and how it learns."""

    lr: float
    temperature: float
    hard: bool
    steps_per_round: int
    top: int = 0
    """Number of the most likely candidates that a soft choice mixes; 0 is all. A hard choice does not use it."""
    gradient: SearchGradient = "straight-through"
    """How pi learns: through the chosen embedding ("straight-through"), or by the chosen words' losses ("score")."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"a temperature is above 0, got {self.temperature}; 2 is EAP's")
        if self.hard and self.top:
            raise ValueError(f"a hard choice is of one candidate; top={self.top} mixes some, and needs hard=False")
        if self.steps_per_round < 0:
            raise ValueError(f"search_turns is at least 0, got {self.steps_per_round}")
        check_choice("search gradient", self.gradient, get_args(SearchGradient))
        if self.gradient == "score" and not self.single:
            raise ValueError("the score gradient is that of one chosen word, not of a mixture: give hard=True")

    @property
    def single(self) -> bool:
        """Whether a choice is a single word, whose own trajectory and predictions may have been stored."""
        return self.hard

    @property
    def has_leading_word(self) -> bool:
        """Whether a choice has a leading word, on whose stored trajectories it may be evaluated."""
        return self.hard or self.top > 0


@dataclass(frozen=True)
class Selection:
    """What the search chose for the n rows of a step."""

    cond: Cond
    """Conditions of the n rows, differentiable in pi."""
    words: Sequence[str]
    """The leading word of each row, as a prompt."""
    log_probs: Tensor
    """The log-probability [n] of each row's leading word, differentiable in pi."""


@final
class VocabularySearch(Learner):
    """The logits pi over every target's candidates, which ascend the losses of the search's own steps."""

    def __init__(self, vocabulary: Vocabulary, config: SearchConfig) -> None:
        self.vocabulary, self.config, self.steps_per_round = vocabulary, config, config.steps_per_round
        self.history: list[Tensor] = []
        self.last: tuple[Step, Selection] | None = None

    def prepare(self, context: Context) -> None:
        """Finds and encodes the candidates; raises ValueError where there are none."""
        self.words = self.vocabulary.find_candidates(context)
        self.lists = list(self.words.values())
        self.start([len(words) for words in self.lists], context.model.device)
        self.tables = {
            (i, j): context.model.encode([template.format(word) for word in words])
            for i, words in enumerate(self.lists)
            for j, template in enumerate(context.config.templates)
        }
        counts = ", ".join(f"{len(words)} for {target}" for target, words in self.words.items())
        self.about = f"candidate words: {counts}"
        self.held_bytes = sum(tensor.nbytes for table in self.tables.values() for tensor in table.tensors.values())

    def list_prompts(self, context: Context) -> list[str]:
        """Every candidate in every template."""
        return [form.format(word) for words in self.lists for word in words for form in context.config.templates]

    def start(self, sizes: Sequence[int], device: torch.device) -> None:
        """Sets equal logits for this many candidates of each target."""
        self.logits = [torch.full((n,), 1.0 / n, device=device, requires_grad=True) for n in sizes]
        self.adam = Adam32bit(self.logits, self.config.lr, maximize=True)

    def select(self, context: Context, step: Step) -> Selection:
        """The choice for each row of the step; all calls within one step return the same."""
        if self.last is None or self.last[0] is not step:
            how = self.config
            choices = [
                gumbel_softmax(self.logits[i], how.temperature, how.hard, step.generator, how.top) for i in step.targets
            ]
            rows = zip(step.targets, step.templates, choices, strict=True)
            cond = Cond.cat([self.tables[i, j].mix(choice[None]) for i, j, choice in rows])
            best = torch.stack([choice.argmax() for choice in choices]).tolist()  # read at once, because reading waits
            leading = list(zip(step.targets, best, strict=True))
            # The argmax of logits plus Gumbel noise is distributed by their softmax, at any temperature.
            log_probs = torch.stack([self.logits[i].log_softmax(dim=0)[k] for i, k in leading])
            self.last = (
                step,
                Selection(cond, context.fill_templates(step, [self.lists[i][k] for i, k in leading]), log_probs),
            )
        return self.last[1]

    def list_params(self) -> list[Tensor]:
        return self.logits

    def step(self, grads: Sequence[Tensor]) -> None:
        asked = {*self.last[0].targets} if self.last else {*range(len(grads))}
        self.adam.step([grad if i in asked else None for i, grad in enumerate(grads)])
        self.history.append(torch.stack([pi.detach().argmax() for pi in self.logits]))

    def state_dict(self) -> dict[str, Tensor]:
        empty = torch.empty(0, dtype=torch.long)
        return self.adam.state_dict() | {"history": torch.stack(self.history) if self.history else empty}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.history = list(state["history"].to(self.logits[0].device))
        self.adam.load_state_dict({key: tensor for key, tensor in state.items() if key != "history"})

    def collect_metadata(self) -> dict[str, Any]:
        """For each target: the candidates, and the most likely one after each step of the search."""
        history = torch.stack(self.history).tolist() if self.history else []
        favourites = {
            target: [words[best[i]] for best in history] for i, (target, words) in enumerate(self.words.items())
        }
        return {"candidates": self.words, "favourites": favourites}


def _measure_distances(model: Model, words: Sequence[str], target: str) -> Tensor:
    """Distances [n] of words' embeddings from the target's, on the CPU; in pieces, because embeddings are large."""
    centre = model.encode([target]).flatten()[0]
    pieces = [words[i : i + 256] for i in range(0, len(words), 256)]
    return torch.cat([measure_distances(model.encode(piece).flatten(), centre).cpu() for piece in pieces])
