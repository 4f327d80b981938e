"""The work behind the playground, without its page: draws base and edited model, and attacks the edit by prompts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from torch import Tensor

from ..api.attacking import add_aliases
from ..api.resources import find_world
from ..attacks import build_attack, describe, list_names
from ..attacks.base import AttackContext, propose_within_budget
from ..concept import Prompt
from ..edits.edit import Edit, apply
from ..evaluation.evaluate import read_request
from ..models.base import Model
from ..plurals import write_count
from ..robustness.conditions import ConceptAliases, find_aliases, list_one_token_words
from ..robustness.run import make_no_pictures
from ..scorers.base import Scorer, judge_on
from .looking import Picture, build_row, find_detectors, find_eyes
from .scene import Scene, write_commands


@final
@dataclass(frozen=True)
class Entry:
    """One try: what was drawn, and what came of it."""

    what: str
    """"drawn", or the attack's name with what it changed."""
    scene: Scene
    base: Picture | None
    """The untouched model's picture; None for a try of an attack, which only the edited model draws."""
    edited: Picture
    commands: str
    """The command lines that draw the same pictures."""


@final
@dataclass
class Playground:
    """Holds one model at a time and the edits to try on it, and draws one thing at a time."""

    load: Callable[[str], Model]
    """Opens a model by its name."""
    models: tuple[str, ...]
    """The models to choose from."""
    edits: tuple[str, ...] = ()
    """The files of edits to choose from."""
    only_these: bool = False
    """Whether other models and edits are refused, because other machines can reach the page."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Options of `efface.load` that differ from its defaults, for the printed commands."""
    detectors: tuple[Scorer, ...] = field(default_factory=find_detectors)
    """Detectors of nudity, by which explicit pictures are blurred."""
    _opened: dict[str, Model] = field(default_factory=dict, repr=False)
    _words: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def draw(self, scene: Scene, concept: str = "") -> Entry:
        """Draws the scene with the untouched model and with its edits.

        Args:
            scene: the scene.
            concept: the concept that judges look for; by default the target of the first edit.

        Raises:
            FileNotFoundError, ValueError: there is no such file, it is no edit, the edit is of another model, or this
                page does not offer the model or edit; this is raised before anything is drawn.
        """
        edits = self.load_edits(scene)
        row = build_row(scene.model, scene.prompt, scene.seed, concept or next(iter(list_targets(edits)), ""))
        with self._lock:
            model = self._open(scene.model)
            for edit in edits:
                edit.check(model)
            eyes = find_eyes(scene.model, row, self.detectors)
            base = eyes.look(draw_one(model, scene), row)
            with apply(model, edits, [strength for _, strength in scene.edits]):
                edited = eyes.look(draw_one(model, scene), row) if edits else base
        return Entry("drawn", scene, base, edited, write_commands(scene, self.flags))

    def attack(
        self, scene: Scene, name: str, concept: str = "", tries: int = 8, other_names: Sequence[str] = ()
    ) -> Iterator[Entry]:
        """Gives the tries of an attack on the scene, until the judges see the concept or the tries are used up.

        Without a judge all tries are made, and the user decides.

        Args:
            scene: the scene.
            name: one of `list_attacks()`.
            concept: the concept to bring back; by default the target of the first edit.
            tries: the largest number of tries.
            other_names: further names of the concept, for the attack that tries these.

        Raises:
            ValueError: there is no edit to attack or no such attack by prompts, or the attack can't be made here, and
                the message says why.
        """
        if name not in list_attacks():
            raise ValueError(
                f"{name!r} is no attack that only changes the prompt; there are {', '.join(list_attacks())}"
            )
        edits = self.load_edits(scene)
        asked = concept or next(iter(list_targets(edits)), "")
        if not edits or not asked:
            raise ValueError("choose an edit first: an attack brings back what an edit erased, and there is none")
        row = build_row(scene.model, scene.prompt, scene.seed, asked)
        with self._lock:
            context = self._build_context(scene, row.concept, row.asks, edits, other_names)
            eyes = find_eyes(scene.model, row, self.detectors)
        chosen = build_attack(name, scene.model, str(tries))
        chosen.check(context)
        with closing(propose_within_budget(chosen, context, [row])) as rounds:
            candidates = next(rounds, None)
            while candidates is not None:
                broken = False
                if (candidate := candidates[0]) is not None:
                    said = candidate.prompt.text if isinstance(candidate.prompt, Prompt) else candidate.prompt
                    tried = replace(scene, prompt=said, seed=candidate.seed)
                    # Weights are swapped for one picture at a time, because the caller may stop after any try.
                    with self._lock, apply(context.model, edits, [strength for _, strength in scene.edits]):
                        picture = eyes.look(draw_one(context.model, tried), row)
                    broken = bool(picture.shown)
                    what = f"{name}: {candidate.note}" if candidate.note else name
                    yield Entry(what, tried, None, picture, write_commands(tried, self.flags))
                try:
                    candidates = rounds.send([broken])
                except StopIteration:
                    return

    def load_edits(self, scene: Scene) -> list[Edit]:
        """Reads the scene's edits from their files; refuses files that this page does not offer."""
        files = [file for file, _ in scene.edits]
        if self.only_these:
            offered = {"model": self.models, "edit": self.edits}
            for kind, given in (("model", scene.model), *(("edit", file) for file in files)):
                if given not in offered[kind]:
                    raise ValueError(
                        f"the {kind} {given!r} is not offered: other machines reach this page, so that it takes only "
                        f"what its command line names: {', '.join(offered[kind]) or 'none'}"
                    )
        return [Edit.load(Path(file)) for file in files]

    def _open(self, name: str) -> Model:
        """Opens the model of that name, and drops the one before."""
        if name not in self._opened:
            self._opened.clear()
            self._opened[name] = self.load(name)
            judge_on(self._opened[name].device)
        return self._opened[name]

    def _build_context(
        self, scene: Scene, concept: str, asks: str, edits: Sequence[Edit], other_names: Sequence[str]
    ) -> AttackContext:
        """The context of an attack by prompts, which needs no pictures."""
        model = self._open(scene.model)
        for edit in edits:
            edit.check(model)
        if scene.model not in self._words:
            self._words[scene.model] = list_one_token_words(model)
        aliases = add_aliases(find_aliases(find_world(scene.model)), {concept: other_names})
        known = aliases.get(concept, ConceptAliases())
        originals = {name: model.weights[name] for edit in edits for name in edit.names}

        @contextmanager
        def base() -> Iterator[None]:
            with model.swap_in(originals), model.unguided():
                yield

        return AttackContext(
            model=model,
            edit=edits[0],
            concept=concept,
            base=base,
            synonyms=known.synonyms,
            words=self._words[scene.model],
            pictures=make_no_pictures(model),
            asks=asks,
            paraphrases=known.paraphrases,
            steps=scene.steps,
            guidance=scene.guidance,
            seed=scene.seed,
        )


def draw_one(model: Model, scene: Scene) -> Tensor:
    """Draws one picture, uint8 [3, h, w], with the model in its present state, as `efface draw` does."""
    return model.images([scene.prompt], [scene.seed], steps=scene.steps, guidance=scene.guidance)[0]


def list_attacks() -> list[str]:
    """The attacks for which an attacker only needs to type prompts."""
    return [name for name in list_names() if describe(name)["threat"] == "prompts"]


def list_targets(edits: Sequence[Edit]) -> list[str]:
    """The targets of the edits, in their order, each once; edits without a request have none."""
    found: dict[str, None] = {}
    for edit in edits:
        found |= dict.fromkeys(read_request(edit).targets if edit.meta.get("request") else ())
    return list(found)


def describe_outcome(attack: str, made: Sequence[Entry]) -> str:
    """Says in a sentence what came of an attack's tries."""
    verdicts = [entry.edited.shown for entry in made]
    count = write_count(len(made), "try", "tries")
    if not made:
        return f"{attack} had nothing to try."
    if True in verdicts:
        return f"{attack} broke the edit at try {verdicts.index(True) + 1}: the judges see the concept again."
    if None in verdicts:
        left = "no try was" if not any(v is False for v in verdicts) else f"{verdicts.count(None)} of them were not"
        return f"{attack} made {count}; {left} judged: look at the pictures yourself."
    return f"The edit stood {count} of {attack}; other prompts and seeds may still break it."
