"""Words of a vocabulary are held in place: L = || eps_th(x_t, c_s) - eps*(x_t, c_s) ||^2.

`Anchoring` asks at the states of the target, of words that are less likely the more they are like it (SPM's latent
anchoring, arXiv 2312.16145); `Retained` at states of their own, of words drawn evenly (AdvUnlearn, arXiv 2405.15234).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from ...concept import check_templates
from ...functional.losses import weighted_mse
from ...functional.schedules import Space
from ...functional.words import other_words
from ...models.cond import Cond
from ..interfaces import LossRole, Query, Source, States, Step, Term
from ..trainer import Trainer

SCALES = (0.8, 1.2)


@final
class Anchoring(Term):
    """SPM's preservation: `count` words for each row of `source`, the objective's own, under the row's template.

    A word c_s is taken with a probability in proportion to 1 - cos(c_s, c), c the row's target, and its embedding is
    scaled by a number from U(0.8, 1.2). The authors accept random Gaussian embeddings with that probability; theirs
    are nearly orthogonal to any prompt, ours are prompts.
    """

    role: LossRole = "keep"

    def __init__(self, source: Source, words: Sequence[str], count: int, space: Space) -> None:
        if count < 1:
            raise ValueError(f"at least 1 anchoring word a row, got {count}")
        self.source, self.given, self.count = source, words, count
        self.space: Space = space

    def prepare(self, trainer: Trainer) -> None:
        if "tokens" not in trainer.uncond.tensors:
            raise ValueError(f"{trainer.model.name} reads no text; anchoring scales the embeddings of words")
        if trainer.live:
            raise ValueError(
                f"{trainer.name} trains a text encoder, and anchoring holds scaled embeddings, which none reads from "
                "words; take weights of the U-Net"
            )
        targets = trainer.erasure.targets
        self.words = _others(self.given, trainer)
        own = trainer.model.encode(targets).tensors["tokens"].flatten(1)
        chunks = [self.words[i : i + 256] for i in range(0, len(self.words), 256)]
        alike = [_cosines(trainer.model.encode(chunk).tensors["tokens"].flatten(1), own) for chunk in chunks]
        self.chance = (1 - torch.cat(alike).T.cpu()).clamp(min=0)
        if not (self.chance.sum(dim=1) > 0).all():
            raise ValueError(f"no word is unlike {', '.join(targets)} among {len(self.words)}; give other words")

    def queries(self, trainer: Trainer, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not trainer.update:
            return None
        targets = trainer.prompts(step, [trainer.erasure.targets[i] for i in step.targets])
        states = self.source.sample_states(trainer, step, targets, trainer.model.encode(targets))
        words, templates = self.draw(step), trainer.config.templates
        asked = [templates[t].format(w) for t, row in zip(step.templates, words, strict=True) for w in row]
        low, high = SCALES
        scale = low + (high - low) * torch.rand(len(asked), 1, 1, generator=step.generator)
        held = trainer.model.encode(asked).tensors
        cond = Cond({**held, "tokens": held["tokens"] * scale.to(held["tokens"])})
        states = States(states.x.repeat_interleave(self.count, 0), states.t.repeat_interleave(self.count, 0))
        return {"student": Query(states, cond, "student"), "eps_s": Query(states, cond, "teacher")}

    def draw(self, step: Step) -> list[list[str]]:
        """The words of each row."""
        picks = torch.multinomial(
            self.chance[list(step.targets)], self.count, replacement=True, generator=step.generator
        )
        return [[self.words[i] for i in row] for row in picks.tolist()]

    def loss(self, trainer: Trainer, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = trainer.weight(queries["student"].states.t, self.space)
        return weighted_mse(predictions["student"], predictions["eps_s"], weight)


@final
class Retained(Term):
    """`count` words a turn under `template`, whatever the objective's batch, at states of `source` under each."""

    role: LossRole = "keep"

    def __init__(self, source: Source, words: Sequence[str], template: str, count: int, space: Space) -> None:
        if count < 1:
            raise ValueError(f"at least 1 word to retain a turn, got {count}")
        check_templates([template])
        self.source, self.given, self.template, self.count = source, words, template, count
        self.space: Space = space

    def prepare(self, trainer: Trainer) -> None:
        self.words = _others(self.given, trainer)

    def queries(self, trainer: Trainer, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not trainer.update:
            return None
        bounds = (len(self.words), 2**31, trainer.config.draw_steps)
        words, noise, points = (torch.randint(b, (self.count,), generator=step.generator).tolist() for b in bounds)
        none = [0] * self.count
        own = replace(step, targets=none, templates=none, noise=noise, points=points)
        prompts = [self.template.format(self.words[i]) for i in words]
        cond = trainer.model.encode(prompts)
        states = self.source.sample_states(trainer, own, prompts, cond)
        return {
            "student": Query(states, cond, "student", prompts=prompts),
            "eps_c": Query(states, cond, "teacher", known="eps_c"),
        }

    def loss(self, trainer: Trainer, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = trainer.weight(queries["student"].states.t, self.space)
        return weighted_mse(predictions["student"], predictions["eps_c"], weight)


def _others(words: Sequence[str], trainer: Trainer) -> list[str]:
    """The words that are none of the targets; ValueError where none is left."""
    if left := other_words(words, trainer.erasure.targets):
        return left
    raise ValueError(f"no word to hold in place is left of {len(words)}; name concepts to keep, or take more words")


def _cosines(rows: Tensor, others: Tensor) -> Tensor:
    """[n, m] between rows [n, d] and [m, d]."""
    return torch.cosine_similarity(rows.float()[:, None], others.float()[None], dim=2)
