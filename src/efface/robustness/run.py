"""Runs attacks on a model in its present state, batch by batch; finished batches are read from files."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ..attacks.base import Attack, AttackContext, Candidate, Proposals, Threat
from ..edits.edit import Edit
from ..evaluation.images import digest
from ..files import hash_bytes, read_tensors, write_tensors
from ..functional.adversary import NoGradient, NotFinite
from ..models.base import Model
from ..origin import hash_code
from ..records.attacks import Batch, Condition, RowResult, Status
from ..records.report import Drawing
from ..suites.spec import Row
from .batch import ImageJudge, resume, run_batch, write_batch
from .conditions import AttackTarget
from .progress import CONTROL, PLAIN

VERSION = "1"
"""A version that changes whenever the same attack may have another result."""
REFERENCE_IMAGES = 25
"""The number of pictures of a concept that an attacker has, as in CCE."""
TURNS = 4
OLDER: Mapping[Condition, str] = {"target": "edited", "control-base": "base", "control-kept": "kept"}
"""The prefixes of the names of batches' files in version 1."""
Tensors = dict[str, Tensor]


@final
@dataclass(frozen=True, kw_only=True)
class NoAttack(Attack):
    """No attack: the plain prompt."""

    threat: ClassVar[Threat] = "prompts"
    version: ClassVar[str] = "1"
    batch_size: ClassVar[int] = 64
    keeps_images: ClassVar[bool] = True
    queries: int = 1

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        yield [Candidate(row.prompt, row.seed) for row in rows]


@dataclass
class AttackResult:
    """The result of one attack under one condition."""

    row_results: dict[str, RowResult] = field(default_factory=dict)
    """The results of the attacked rows, by row id."""
    seconds: float = 0.0
    missing: str = ""
    """The reason why there is no value; "" where there is one."""
    status: Status = "made"
    inputs: list[str] = field(default_factory=list)
    """For each concept, the digest of everything on which the results depend."""

    def add(self, other: AttackResult) -> None:
        """Adds the result of the same attack on further rows; if a part has no value, the whole has none."""
        self.row_results |= other.row_results
        self.seconds += other.seconds
        self.inputs += other.inputs
        if not self.missing:
            self.missing, self.status = other.missing, other.status


@dataclass(frozen=True)
class AttackRunner:
    """Runs attacks on a model in its present state; it holds what all attacks share."""

    image_judge: ImageJudge
    edit: Edit | None
    """The edit that is in place; None for the untouched base."""
    drawing: Drawing
    """How the model draws in its present state."""
    originals: Mapping[str, Tensor]
    """The untouched base's weights, by name."""
    reference_images: Mapping[str, Tensor]
    """The base's pictures of each concept, uint8 [n, 3, h, w]."""
    words: Sequence[str]
    seed: int
    on_progress: Callable[[str, int, int], None]
    erased: Collection[str] = ()
    """The erased concepts of the campaign."""

    @contextmanager
    def use_base(self) -> Iterator[None]:
        model, names = self.image_judge.model, self.edit.names if self.edit else ()
        with model.swap_in({name: self.originals[name] for name in names}), model.unguided():
            yield

    def find_other(self, concept: str) -> str:
        """Another concept with reference pictures, a kept one if possible; "" where there is none.

        For an erased concept it is no erased one, whose pictures may show both (as of "nudity" and "a naked person").
        """
        others = [name for name, shown in self.reference_images.items() if name != concept and len(shown)]
        fit = [name for name in others if not (concept in self.erased and name in self.erased)]
        return min(fit, key=lambda name: name in self.erased, default="")

    def build_context(
        self, target: AttackTarget, attack: str, settings: Mapping[str, Any], shown: str = ""
    ) -> AttackContext:
        """The context of an attack on this target; its pictures are of `shown`, by default of the concept."""
        model = self.image_judge.model
        return AttackContext(
            model=model,
            edit=self.edit,
            concept=target.concept,
            base=self.use_base,
            synonyms=target.aliases.synonyms,
            words=self.words,
            pictures=self.reference_images[shown or target.concept],
            asks=target.asks,
            paraphrases=target.aliases.paraphrases,
            placeholder=target.placeholder,
            steps=self.image_judge.steps,
            guidance=self.image_judge.guidance,
            seed=self.seed,
            once=build_store(self.image_judge.folder / attack, self.list_dependencies(target, settings, shown)),
        )

    def run(
        self, name: str, attack: Attack, target: AttackTarget, rows: Sequence[Row], shown: str = "", plain: str = ""
    ) -> AttackResult:
        """Runs the attack on some rows of a target; without a gradient it ends, and its results until then count.

        `shown` is the concept of the attacker's pictures, if it is not the target's. `plain` says of which prompts a
        drawing is that attacks none; no other drawing of a campaign has the same title in its progress.
        """
        title = f"{name}, {target.condition}, {target.concept}"
        if shown:
            title = f"{CONTROL} {name}, with pictures of {shown}, {target.condition}, {target.concept}"
        elif plain:
            title = f"{PLAIN} {plain}, {'edited model' if self.edit else 'base'}, {target.concept}"
        found = AttackResult(inputs=[self.identify(name, attack, target)])
        try:
            for batch in self._split_batches(name, attack, target, rows, shown):
                found.row_results |= {result.row: result for result in batch.row_results}
                found.seconds += batch.seconds
                self.on_progress(title, len(found.row_results), len(rows))
        except NoGradient as error:
            found.missing, found.status = str(error), "no gradient"
            return found
        except NotFinite as error:
            found.missing, found.status = str(error), "error"
            return found
        if rows and not any(result.queries for result in found.row_results.values()):
            found.row_results, found.missing, found.status = {}, "it proposed no candidate for any row", "refused"
        return found

    def identify(self, name: str, attack: Attack, target: AttackTarget, shown: str = "") -> str:
        """The digest of everything on which an attack's results depend, except the rows, with its name."""
        return digest([name, self.list_dependencies(target, _read_settings(attack), shown)])

    def _split_batches(
        self, name: str, attack: Attack, target: AttackTarget, rows: Sequence[Row], shown: str
    ) -> Iterator[Batch]:
        """The batches of rows, and after the one in which the attack lost its gradient or its numbers, that error."""
        settings = _read_settings(attack)
        depends, inputs = self.list_dependencies(target, settings, shown), self.identify(name, attack, target, shown)
        folder, size = self.image_judge.folder / name, attack.batch_size or len(rows)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            key = digest([depends, [dataclasses.asdict(row) for row in part]])
            file, older = (folder / f"{word}-{key}.json" for word in (target.condition, OLDER[target.condition]))
            batch = resume(file, len(part), self.image_judge.folder)
            if batch is None:
                began = time.monotonic()
                if (before := resume(older, len(part), self.image_judge.folder)) is None:
                    context = self.build_context(target, name, settings, shown)
                    made = run_batch(attack, context, part, self.image_judge)
                    before = Batch(row_results=made.row_results, seconds=time.monotonic() - began)
                    if made.error is not None:  # not finished, so that it gets no file
                        yield before
                        raise made.error
                facts = {"attack": name, "condition": target.condition, "inputs": inputs}
                batch = write_batch(file, before.model_copy(update=facts))
            yield batch

    def list_dependencies(self, target: AttackTarget, settings: Mapping[str, Any], shown: str = "") -> dict[str, Any]:
        """Everything on which an attack's results depend, except its rows."""
        other = {"shown": hash_bytes(self.reference_images[shown].numpy().tobytes())} if shown else {}
        return {
            **other,
            "runner": VERSION,
            "settings": dict(settings),
            "drawing": self.drawing.model_dump(exclude={"model"}),
            "judges": self.image_judge.judges.identify(),
            "concept": [target.concept, target.asks, target.placeholder, dataclasses.astuple(target.aliases)],
            "words": digest(list(self.words)),
            "pictures": [[row.prompt, list(row.counts), row.guidance] for row in target.asked],
            "seed": self.seed,
        }


def check_attack(attack: Attack, context: AttackContext) -> None:
    """Calls the attack's own check; raises ValueError also where it changes weights that are held in 4 or 8 bits."""
    if attack.threat == "weights" and context.model.quantised:
        held = f"{context.model.name} is held in {context.model.quantised} bits"
        raise ValueError(f"{type(attack).__name__} changes weights, and {held}; open it without --quantise")
    attack.check(context)


def _read_settings(attack: Attack) -> dict[str, Any]:
    code = hash_code(type(attack))
    return {"version": attack.version, **dataclasses.asdict(attack), **({"code": code} if code else {})}


def build_store(folder: Path, depends: Mapping[str, Any]) -> Callable[[str, Callable[[], Tensors]], Tensors]:
    """Gives a function that does work once and stores it in a file, named by the digest of what it depends on."""

    def kept(name: str, make: Callable[[], Tensors]) -> Tensors:
        file = folder / f"{name}-{digest([name, depends])}.safetensors"
        try:
            return read_tensors(file)[0]
        except (FileNotFoundError, ValueError):
            made = make()
            write_tensors(file, made, {"name": name})
            return made

    return kept


def draw_plain(runner: AttackRunner, target: AttackTarget, named: bool) -> dict[str, RowResult]:
    """The results of plain prompts, drawn by the model in its present state: the suite's rows where `named`, else the
    rows that will be attacked.
    """
    rows, plain = (target.asked, "of the suite") if named else (target.rows, "to attack")
    return runner.run("plain", NoAttack(), target, rows, plain=plain).row_results


def draw_reference_images(
    runner: AttackRunner, conditions: Sequence[AttackTarget], known: Collection[str] = ()
) -> dict[str, Tensor]:
    """Draws pictures, uint8 [n, 3, h, w], of every concept except the `known` with the untouched base."""
    found = {concept: make_no_pictures(runner.image_judge.model) for concept in known}
    for target in conditions:
        if target.concept not in found:
            keep = build_store(runner.image_judge.folder / "portraits", runner.list_dependencies(target, {}))
            found[target.concept] = keep("portraits", lambda p=target: {"pictures": _draw_reference_images(runner, p)})[
                "pictures"
            ]
    return found


def _draw_reference_images(runner: AttackRunner, target: AttackTarget) -> Tensor:
    """Draws pictures of a concept, uint8 [n, 3, h, w], and keeps those that the judges confirm.

    The prompts are the suite's, the seeds are in no suite; it draws in a few turns, because a model may show it seldom.
    """
    rng, found = random.Random(f"portraits/{runner.seed}/{target.concept}"), []
    for _ in range(TURNS):
        rows = [
            dataclasses.replace(row, seed=rng.randrange(2**31)) for row in rng.choices(target.asked, k=REFERENCE_IMAGES)
        ]
        candidates = [Candidate(row.prompt, row.seed) for row in rows]
        pictures, seen = runner.image_judge.draw_and_look(candidates, rows)
        found += [picture for picture, said in zip(pictures, seen, strict=True) if said.verdict]
        if len(found) >= REFERENCE_IMAGES:
            break
    return torch.stack(found[:REFERENCE_IMAGES]) if found else make_no_pictures(runner.image_judge.model)


def make_no_pictures(model: Model) -> Tensor:
    """Makes an empty stack of pictures, uint8 [0, 3, h, w], of the model's resolution."""
    return torch.empty((0, 3, model.resolution, model.resolution), dtype=torch.uint8)
