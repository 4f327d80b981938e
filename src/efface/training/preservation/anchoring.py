"""Keeps words of a vocabulary: L = || eps_th(x_t, c_s) - eps*(x_t, c_s) ||^2.

`Anchoring` keeps them at states of the target, and chooses a word less often the more similar it is to the target
(SPM's latent anchoring, arXiv 2312.16145). `Retained` keeps them at states of their own, and chooses all words equally
often (AdvUnlearn, arXiv 2405.15234).
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
from ...functional.words import list_other_words
from ...plurals import write_count
from ..interfaces import Context, LossRole, Query, Source, States, Step, Term
from ..seeds import NOISE_SEEDS

SCALES = (0.8, 1.2)
ROUNDING = 1e-6
"""Equal embeddings differ by no more than this in 1 - cos, in fp32."""


@final
class Anchoring(Term):
    """SPM's preservation: `count` words in the row's template for each row of `source`, which is the objective's.

    A word c_s is chosen with a probability proportional to 1 - cos(c_s, c), where c is the row's target, and its
    embedding is scaled by a number from U(0.8, 1.2). The authors accept random Gaussian embeddings with that
    probability, which are nearly orthogonal to any prompt; ours are embeddings of prompts.
    """

    role: LossRole = "keep"

    def __init__(self, source: Source, words: Sequence[str], count: int, space: Space) -> None:
        if count < 1:
            raise ValueError(f"at least 1 anchoring word a row, got {count}")
        self.source, self.given, self.count = source, words, count
        self.space: Space = space

    def prepare(self, context: Context) -> None:
        if not context.uncond.sequence:
            raise ValueError(f"{context.model.name} reads no text; anchoring scales the embeddings of words")
        if context.trains_text_encoder:
            raise ValueError(
                f"{context.method} trains a text encoder, and anchoring keeps scaled embeddings, which no text encoder "
                "gives; take weights of the U-Net"
            )
        targets = context.erasure.targets
        self.words = _list_others(self.given, context)
        own = context.model.encode(targets).tokens.flatten(1)
        chunks = [self.words[i : i + 256] for i in range(0, len(self.words), 256)]
        alike = [_measure_cosines(context.model.encode(chunk).tokens.flatten(1), own) for chunk in chunks]
        apart = 1 - torch.cat(alike).T.cpu()
        self.chance = apart * (apart > ROUNDING)
        if not self.chance.any(dim=1).all():
            raise ValueError(
                f"none of {write_count(len(self.words), 'word')} differs from {', '.join(targets)}; give other words"
            )

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        targets = context.list_target_prompts(step)
        states = self.source.sample_states(context, step, targets, context.model.encode(targets))
        words, templates = self.draw(step), context.config.templates
        asked = [templates[t].format(w) for t, row in zip(step.templates, words, strict=True) for w in row]
        low, high = SCALES
        scale = low + (high - low) * torch.rand(len(asked), 1, 1, generator=step.generator)
        own = context.model.encode(asked)
        cond = own.with_embedding(own.tokens * scale.to(own.tokens))
        states = States(states.x.repeat_interleave(self.count, 0), states.t.repeat_interleave(self.count, 0))
        return {"student": Query(states, cond, "student"), "eps_s": Query(states, cond, "teacher")}

    def draw(self, step: Step) -> list[list[str]]:
        """Draws `count` words for each row of the step."""
        picks = torch.multinomial(
            self.chance[list(step.targets)], self.count, replacement=True, generator=step.generator
        )
        return [[self.words[i] for i in row] for row in picks.tolist()]

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = context.weigh_loss(queries["student"].states.t, self.space)
        return weighted_mse(predictions["student"], predictions["eps_s"], weight)


@final
class Retained(Term):
    """Keeps `count` words in `template` in each step, whatever the batch is, at states of `source` for each."""

    role: LossRole = "keep"

    def __init__(self, source: Source, words: Sequence[str], template: str, count: int, space: Space) -> None:
        if count < 1:
            raise ValueError(f"at least 1 word to retain a step, got {count}")
        check_templates([template])
        self.source, self.given, self.template, self.count = source, words, template, count
        self.space: Space = space

    def prepare(self, context: Context) -> None:
        self.words = _list_others(self.given, context)

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        bounds = (len(self.words), NOISE_SEEDS, context.config.draw_steps)
        words, noise, points = (torch.randint(b, (self.count,), generator=step.generator).tolist() for b in bounds)
        none = [0] * self.count
        own = replace(step, targets=none, templates=none, noise=noise, points=points)
        prompts = [self.template.format(self.words[i]) for i in words]
        cond = context.model.encode(prompts)
        states = self.source.sample_states(context, own, prompts, cond)
        return {
            "student": Query(states, cond, "student", prompts=prompts),
            "eps_c": Query(states, cond, "teacher", known="eps_c"),
        }

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = context.weigh_loss(queries["student"].states.t, self.space)
        return weighted_mse(predictions["student"], predictions["eps_c"], weight)


def _list_others(words: Sequence[str], context: Context) -> list[str]:
    """The words that do not name a target; ValueError where none is left."""
    if left := list_other_words(words, context.erasure.targets):
        return left
    raise ValueError(f"no word to hold in place is left of {len(words)}; name concepts to keep, or take more words")


def _measure_cosines(rows: Tensor, others: Tensor) -> Tensor:
    """Cosine similarities [n, m] between rows [n, d] and [m, d]."""
    return torch.cosine_similarity(rows.float()[:, None], others.float()[None], dim=2)
