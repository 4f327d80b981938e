"""Fights of attacks on a model as it now is, batch by batch; what was finished before is read from files."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ..attacks.base import Arena, Attack, Shot, Shots, Threat
from ..edits.edit import Edit
from ..evaluation.images import digest
from ..files import hash_bytes, read_tensors, write_tensors
from ..functional.adversary import NoGradient
from ..models.base import Model
from ..records.attacks import Outcome
from ..records.report import Drawing
from ..suites.spec import Row
from .batch import Range, finish, resumed, volley
from .conditions import Place

VERSION = "1"
"""Changes whenever the same attack may come out differently."""
PORTRAITS = 25
"""Pictures of a concept that an attacker has: CCE's number."""
TURNS = 4
Tensors = dict[str, Tensor]


@final
@dataclass(frozen=True, kw_only=True)
class Plain(Attack):
    """No attack: the prompt as it is."""

    threat: ClassVar[Threat] = "prompts"
    version: ClassVar[str] = "1"
    at_once: ClassVar[int] = 64
    queries: int = 1

    def shots(self, arena: Arena, rows: Sequence[Row]) -> Shots:
        yield [Shot(row.prompt, row.seed) for row in rows]


@dataclass
class Fight:
    """What one attack did on one ground."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """By row, of the rows that were attacked."""
    seconds: float = 0.0
    missing: str = ""
    """Why there is no value, where there is none."""
    blind: bool = False
    """Whether that is because no gradient was found."""

    def add(self, other: Fight) -> None:
        """Take in what the same attack did on further rows; what is missing of it is missing of all."""
        self.outcomes |= other.outcomes
        self.seconds += other.seconds
        self.missing, self.blind = other.missing, other.blind


@dataclass(frozen=True)
class Bout:
    """What stays the same from one fight to the next."""

    range_: Range
    edit: Edit | None
    """The edit that is in place; None for the untouched base."""
    drawing: Drawing
    """How the model draws as it now is."""
    originals: Mapping[str, Tensor]
    """The untouched base's weights, by name."""
    portraits: Mapping[str, Tensor]
    """What the base draws of each concept; uint8 [n, 3, h, w]."""
    words: Sequence[str]
    seed: int
    tell: Callable[[str, int, int], None]

    @contextmanager
    def base(self) -> Iterator[None]:
        model, names = self.range_.model, self.edit.names if self.edit else ()
        with model.bound({name: self.originals[name] for name in names}), model.unguided():
            yield

    def other_than(self, concept: str) -> str:
        """Another concept of which there are pictures; "" where there is none."""
        return next((name for name, shown in self.portraits.items() if name != concept and len(shown)), "")

    def arena(self, place: Place, attack: str, settings: Mapping[str, Any], shown: str = "") -> Arena:
        """What the attack finds in this place; its pictures are of `shown`, by default of the concept."""
        model = self.range_.model
        return Arena(
            model=model,
            edit=self.edit,
            concept=place.concept,
            base=self.base,
            synonyms=place.lore.synonyms,
            words=self.words,
            pictures=self.portraits[shown or place.concept],
            asks=place.asks,
            paraphrases=place.lore.paraphrases,
            called=place.called,
            steps=self.range_.steps,
            guidance=self.range_.guidance,
            seed=self.seed,
            once=once(self.range_.folder / attack, self.depends(place, settings, shown)),
        )

    def fight(self, name: str, attack: Attack, place: Place, rows: Sequence[Row], shown: str = "") -> Fight:
        """The attack on some rows of a place; where it finds no gradient it ends, and what it did until then counts.

        `shown`: the concept of the attacker's pictures, where that is another than the place's.
        """
        found = Fight()
        try:
            for part, batch in self._batches(name, attack, place, rows, shown):
                found.outcomes |= {row.id: outcome for row, outcome in zip(part, batch.outcomes, strict=True)}
                found.seconds += batch.seconds
                self.tell(f"{name}, {place.where}, {place.concept}", len(found.outcomes), len(rows))
        except NoGradient as error:
            found.missing, found.blind = str(error), True
            return found
        if rows and not any(outcome.queries for outcome in found.outcomes.values()):
            return Fight(missing="it offered no try for any row")
        return found

    def _batches(self, name: str, attack: Attack, place: Place, rows: Sequence[Row], shown: str):
        settings = {"version": attack.version, **dataclasses.asdict(attack)}
        depends = self.depends(place, settings, shown)
        size = attack.at_once or len(rows)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            key = digest([depends, [dataclasses.asdict(row) for row in part]])
            file = self.range_.folder / name / f"{place.where}-{key}.json"
            batch = resumed(file, len(part), self.range_.folder)
            if batch is None:
                began = time.monotonic()
                keep = isinstance(attack, Plain)
                arena = self.arena(place, name, settings, shown)
                batch = finish(file, volley(attack, arena, part, self.range_, keep), began)
            yield part, batch

    def depends(self, place: Place, settings: Mapping[str, Any], shown: str = "") -> dict[str, Any]:
        """Everything on which an attack's outcome depends beside its rows."""
        other = {"shown": hash_bytes(self.portraits[shown].numpy().tobytes())} if shown else {}
        return {
            **other,
            "runner": VERSION,
            "settings": dict(settings),
            "drawing": self.drawing.model_dump(exclude={"model"}),
            "judges": self.range_.jury.identity(),
            "concept": [place.concept, place.asks, place.called, dataclasses.astuple(place.lore)],
            "words": digest(list(self.words)),
            "pictures": [row.prompt for row in place.asked],
            "seed": self.seed,
        }


def once(folder: Path, depends: Mapping[str, Any]) -> Callable[[str, Callable[[], Tensors]], Tensors]:
    """Work that is done once and kept in a file, named by the digest of what it depends on."""

    def kept(name: str, make: Callable[[], Tensors]) -> Tensors:
        file = folder / f"{name}-{digest([name, depends])}.safetensors"
        try:
            return read_tensors(file)[0]
        except (FileNotFoundError, ValueError):
            made = make()
            write_tensors(file, made, {"name": name})
            return made

    return kept


def plain(bout: Bout, place: Place, rows: Sequence[Row]) -> dict[str, Outcome]:
    """What plain prompts show, drawn by the model as it now is."""
    return bout.fight("plain", Plain(), place, rows).outcomes


def portrayed(bout: Bout, grounds: Sequence[Place]) -> dict[str, Tensor]:
    """Pictures of every concept by the model as it now is, which is the untouched base."""
    found: dict[str, Tensor] = {}
    for place in grounds:
        if place.concept not in found:
            keep = once(bout.range_.folder / "portraits", bout.depends(place, {}))
            found[place.concept] = keep("portraits", lambda p=place: {"pictures": _portraits(bout, p)})["pictures"]
    return found


def _portraits(bout: Bout, place: Place) -> Tensor:
    """uint8 [n, 3, h, w]: what the model in place draws of a concept where the judges confirm it.

    Of the suite's prompts, from seeds that are in no suite; in a few turns, for a model may show it seldom.
    """
    rng, found = random.Random(f"portraits/{bout.seed}/{place.concept}"), []
    for _ in range(TURNS):
        rows = [dataclasses.replace(row, seed=rng.randrange(2**31)) for row in rng.choices(place.asked, k=PORTRAITS)]
        pictures = bout.range_.draw([Shot(row.prompt, row.seed) for row in rows], rows)
        seen = bout.range_.jury.look(pictures, rows)
        found += [picture for picture, said in zip(pictures, seen, strict=True) if said.verdict]
        if len(found) >= PORTRAITS:
            break
    return torch.stack(found[:PORTRAITS]) if found else no_pictures(bout.range_.model)


def no_pictures(model: Model) -> Tensor:
    return torch.empty((0, 3, model.resolution, model.resolution), dtype=torch.uint8)
