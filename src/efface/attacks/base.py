"""The base class of attacks: each tries, within a budget, to make an edited model draw what was erased.

An attack proposes, round by round, one candidate for each row that is not broken yet. The runner draws the candidates,
asks the judges and answers which rows are broken. So an attack is batched over rows and knows no judges or files.
"""

from __future__ import annotations

import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from ..concept import Prompt, fold_name
from ..edits.edit import Edit
from ..functional.adversary import NoGradient as NoGradient
from ..models.base import Model
from ..plurals import write_count
from ..suites.spec import Row
from ._naming import is_akin
from ._naming import put as put
from .denoising_error import DenoisingError

Threat = Literal["prompts", "encoder", "gradients", "weights", "pictures"]
"""What an attacker has access to: prompts; also the text encoder; gradients of the whole model; its weights; input
pictures."""
BLACK_BOX: tuple[Threat, ...] = ("prompts", "encoder")
NEUTRAL: Mapping[str, str] = {"object": "thing", "style": "plain", "nudity": "landscape"}
"""A neutral word that replaces the concept's name, by the kind of the concept."""


@dataclass(frozen=True)
class Candidate:
    """One picture to draw and judge."""

    prompt: str | Prompt
    """Words, or words with the embedding that stands in for the text encoder's output."""
    seed: int
    start: Tensor | None = None
    """[c, h, w]: latents at the `since`-th timestep of the schedule, where drawing does not start from noise."""
    since: int = 0
    note: str = ""
    """A text that says at which point of the attack this candidate was made, such as "20 steps"."""


Proposals = Generator[Sequence[Candidate | None], Sequence[bool], None]
"""Yields a candidate for each of n rows (None: no try for this row); is sent which rows are broken by now."""


def keep_in_memory() -> Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]]:
    """A cache for `AttackContext.once`: a result that was made under a name is returned when that name is asked for
    again."""
    kept: dict[str, dict[str, Tensor]] = {}

    def once(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        if name not in kept:
            kept[name] = make()
        return kept[name]

    return once


@dataclass(frozen=True)
class AttackContext:
    """What an attack is given: the edited model, and what an attacker may know besides."""

    model: Model
    """The edited model; `images` and `sample` draw as its users would."""
    edit: Edit | None
    """The edit in place; None where the untouched base is attacked."""
    concept: str
    """The concept to bring back."""
    base: Callable[[], AbstractContextManager[None]]
    """Puts the untouched base in place inside the `with` block, without the edit's weights and guide.

    Every attacker has this public model."""
    synonyms: Sequence[str]
    """Other names of the concept, in any language, if any are known."""
    words: Sequence[str]
    """Words that are one token each, so that a prompt has exactly the tokens of its words; common ones first."""
    pictures: Tensor
    """The untouched base's pictures of the concept, uint8 [n, 3, h, w], from seeds of no suite; n is 0 in `check`."""
    asks: str = "object"
    """The kind of the concept, which is the question that its judges answer."""
    paraphrases: Sequence[str] = ()
    """Descriptions of the concept that do not name it."""
    placeholder: str = ""
    """The placeholder for the concept's name in the rows' prompts; "" where they contain the name."""
    steps: int | None = None
    """Sampling steps of every drawing; the model's own number by default."""
    guidance: float | None = None
    """Guidance of every drawing; the model's own by default."""
    seed: int = 0
    """Seed of everything random."""
    once: Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]] = field(default_factory=keep_in_memory)
    """Does work that all rows share once: the result of `make` is kept under its name, also in files for later runs."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.concept, *self.synonyms)

    def require_words(self) -> None:
        """Raises ValueError where the model is class-conditional and so reads no other words."""
        if not self.accepts_words:
            raise ValueError(
                f"{self.model.name} is class-conditional and reads no words but its classes' names; use seeds, or an "
                "attack on weights"
            )

    @property
    def accepts_words(self) -> bool:
        return self.model.architecture != "ddpm"

    @property
    def room(self) -> int:
        """The largest number of one-token words that every text encoder reads; 75, CLIP's, without a text encoder."""
        return min((most - used for used, most in self.model.count_tokens("").values()), default=75)

    @property
    def neutral(self) -> str:
        """A neutral word that can stand in place of the concept's name."""
        return self.placeholder or NEUTRAL.get(self.asks, NEUTRAL["object"])

    def put(self, prompt: str, word: str) -> str:
        """Replaces the concept's name, or its placeholder, in the prompt by `word`; without one, `word` comes first."""
        return put(prompt, (*self.names, self.placeholder), word) or f"{word}, {prompt}"

    def list_other_words(self) -> list[str]:
        """The words that are no name of the concept, nor a plural, a beginning or a longer form of one."""
        barred = {fold_name(name).split()[-1] for name in self.names}
        return [word for word in self.words if not any(is_akin(fold_name(word), name) for name in barred)]

    def require_edited_weights(self) -> tuple[str, ...]:
        """The weights that the edit changed; raises ValueError where it changed none, as for the base and a guide."""
        if self.edit is None:
            raise ValueError("the untouched base has no edit that this attack could undo; attack a model under an edit")
        if not self.edit.names:
            raise ValueError(
                f"the edit ({self.edit.meta.get('method', 'a guide')}) steers drawing and changes no weight: whoever "
                "has the weights can leave it out; attack it by prompts, embeddings or pictures"
            )
        return self.edit.names

    def encode_pictures(self, most: int) -> Tensor:
        """Latents [n, c, h, w] of at most `most` pictures; raises NoGradient where there is none to learn from."""
        if not len(self.pictures):
            raise NoGradient(f"the base drew no picture of {self.concept} that the judges confirm: none to learn from")
        return torch.cat([self.model.encode_pictures(part) for part in self.pictures[:most].split(16)])

    def require_image_input(self) -> None:
        """Raises ValueError where the model can't read pictures."""
        self.model.encode_pictures(torch.zeros(1, 3, self.model.resolution, self.model.resolution, dtype=torch.uint8))

    def make_rng(self, *what: object) -> random.Random:
        """A random generator for a row or a purpose, which does not depend on the rows that are attacked together."""
        return random.Random("/".join(map(str, (self.seed, self.concept, *what))))


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """The settings of an attack, whose defaults are its paper's; its class variables say what an attacker needs for
    it."""

    threat: ClassVar[Threat]
    version: ClassVar[str]
    """Version of the attack, which changes whenever its results may change."""
    batch_size: ClassVar[int] = 16
    """Number of rows attacked together; an interruption loses at most these. Work that all rows share is done by
    `AttackContext.once`."""
    budget_fields: ClassVar[tuple[str, ...]] = ("queries",)
    """The fields that form its budget, which `--budget 4x` multiplies; none where every query is a setting of its
    own."""
    applies_to_base: ClassVar[bool] = True
    """Whether it brings a concept to any model; one that only undoes an edit has no control on the untouched base."""
    hands_in_images: ClassVar[bool] = False
    """Whether it draws from pictures of the concept; it is then measured against itself with pictures of another."""
    learns_from_images: ClassVar[bool] = True
    """Whether it reads pictures of the concept, which the base then draws before. One that says no finds none."""
    one_setting_per_query: ClassVar[bool] = False
    """Whether every query of a row is another setting, which `list_stages` names."""
    keeps_images: ClassVar[bool] = False
    """Whether the last picture of a row is kept also where it shows nothing."""
    queries: int = 8
    """Number of queries: pictures drawn and judged for each row, at most."""

    @property
    def over_tokens(self) -> bool:
        """Whether it searches token embeddings; the record then says which text encoder's they are."""
        return False

    def __post_init__(self) -> None:
        """Raises ValueError where a class variable is missing, the budget is below 1 or a setting is wrong."""
        if getattr(self, "threat", "") not in get_args(Threat) or not isinstance(getattr(self, "version", 0), str):
            some = " or ".join(f'"{threat}"' for threat in get_args(Threat))
            raise ValueError(f'{type(self).__name__} needs two class variables: threat ({some}) and version, as "1"')
        for name in dict.fromkeys(("queries", *self.budget_fields)):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        self.check_settings()

    def check_settings(self) -> None:  # noqa: B027 - most attacks have nothing to check
        """Raises ValueError where a setting of its own is wrong."""

    def check(self, context: AttackContext) -> None:  # noqa: B027 - most attacks need nothing
        """Raises ValueError, before any work, where the attack can't be made on this model or edit."""

    def list_stages(self) -> Sequence[str]:
        """The setting of each query of a row ("20 steps"), in order, if each has its own; otherwise empty."""
        return ()

    def list_budget_shares(self) -> Sequence[float] | None:
        """The share of its budget that is spent after each query of a row; None where every query is a setting.

        It is empty where queries say nothing about the budget.
        """
        if not self.budget_fields:
            return None
        return [(i + 1) / self.queries for i in range(self.queries)] if "queries" in self.budget_fields else []

    @abstractmethod
    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        """Attacks these rows. Weights that it changes stay swapped in while it waits for an answer:

            with context.model.swap_in(changed):
                broken = yield [Candidate(row.prompt, row.seed) for row in rows]

        A row's candidates must not depend on the rows that are attacked together (see `AttackContext.make_rng`).

        Raises:
            NoGradient: the attack finds no gradient to follow.
        """


def propose_within_budget(attack: Attack, context: AttackContext, rows: Sequence[Row]) -> Proposals:
    """The attack's candidates for n rows, in at most `attack.queries` rounds, or fewer if all rows are broken.

    Only this function enforces a budget: an attack that would continue is closed, and its weights are released.

    Raises:
        RuntimeError: a round does not hold one entry for each row.
    """
    proposals = attack.propose(context, rows)
    name = type(attack).__name__
    if not isinstance(proposals, Generator):
        raise RuntimeError(f"{name}.propose has to yield the candidates of each round, and returns {proposals!r:.80}")
    with closing(proposals) as rounds:
        broken: Sequence[bool] | None = None
        for _ in range(attack.queries):
            try:
                candidates = next(rounds) if broken is None else rounds.send(broken)
            except StopIteration:
                return
            if len(candidates) != len(rows):
                raise RuntimeError(
                    f"{name} gave {write_count(len(candidates), 'candidate')} for {write_count(len(rows), 'row')}"
                )
            if wrong := [each for each in candidates if each is not None and not isinstance(each, Candidate)]:
                raise RuntimeError(f"{name} gave {wrong[0]!r:.80}; it has to yield a Candidate or None for each row")
            broken = yield candidates
            if all(broken):
                return


class IterativeAttack(ABC):
    """A running attack that improves its candidates from round to round; rows leave it when they are broken."""

    @abstractmethod
    def advance(self, round_index: int) -> Sequence[Candidate]:
        """Works for one round, and returns a candidate for each row that is not broken yet."""

    @abstractmethod
    def keep(self, rows: Sequence[int]) -> None:
        """Continues with these of the remaining rows only."""


def run_rounds(search: IterativeAttack, n: int) -> Proposals:
    """Runs a search on n rows round by round; broken rows leave it, and it ends when no row is left."""
    up = list(range(n))
    for round_index in itertools.count():
        made = dict(zip(up, search.advance(round_index), strict=True))
        broken = yield [made.get(i) for i in range(n)]
        left = [j for j, i in enumerate(up) if not broken[i]]
        up = [up[j] for j in left]
        if not up:
            return
        search.keep(left)


def build_denoising_error(context: AttackContext, rows: Sequence[Row], name: str) -> DenoisingError:
    """The denoising error at the concept's pictures, for these rows of the attack of this name."""
    rngs = [torch.Generator().manual_seed(context.make_rng(name, row.id).getrandbits(62)) for row in rows]
    latents = torch.cat([context.model.encode_pictures(part) for part in context.pictures.split(16)])
    return DenoisingError(context.model, latents, rngs)
