"""Keeps the concept that the erasure damages most at present, which is searched in a vocabulary (EAP).

L = || eps_th(z, c_a) - eps*(z, c_a) ||^2 with c_a = G(pi) . T, maximised over pi, on trajectories under c_a (Bui et
al., arXiv 2410.15618). As in the authors' code, neither the trajectory nor the teacher's prediction has a gradient to
pi; the student's condition has one, straight through the choice. That gradient says how a chosen word's prediction
would change, not how large another word's loss is: where words are far apart, following it need not lead to the largest
loss. With `gradient="score"` pi ascends the expected loss itself, estimated from the losses of the words that were
chosen. The start noise has the objective's seeds. Where trajectories are stored, the seeds choose among them, and the
noise is the objective's own only if as many are stored for a word as for a target. Where the text encoder is trained,
the student encodes the chosen words anew, so that pi can only learn by "score".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from torch import Tensor

from ...functional.gumbel import estimate_by_score
from ...functional.losses import weighted_errors
from ...functional.schedules import Space
from ..interfaces import Context, Learner, LossRole, Query, Source, Step, Term
from ..vocabulary_search import VocabularySearch


@final
class Adversarial(Term):
    """EAP's preservation, at states of `source`, measured in `space`."""

    role: LossRole = "keep"

    def __init__(self, source: Source, search: VocabularySearch, space: Space) -> None:
        self.source, self.search = source, search
        self.space: Space = space

    @property
    def scored(self) -> bool:
        """Whether pi learns from the losses alone, without a gradient through the condition."""
        return self.search.config.gradient == "score"

    @property
    def least_rows(self) -> int:
        return 2 if self.scored else 1

    def prepare(self, context: Context) -> None:
        if context.config.batch < self.least_rows:
            raise ValueError(
                "search-gradient score compares the words of a batch with each other: give a batch of at least 2, "
                f"got {context.config.batch}"
            )
        if context.trains_text_encoder and not (
            self.search.config.single and (self.scored or not self.search.steps_per_round)
        ):
            raise ValueError(
                f"{context.method} trains a text encoder, so that words are encoded anew in every step: mixtures can't "
                "be encoded, and the choice of the word gets no gradient; take weights of the U-Net, or, where the "
                "method has it, search-gradient score"
            )
        self.search.prepare(context)
        if self.search.config.has_leading_word:
            self.source.expect(self.search.list_prompts(context))

    def list_searches(self) -> Sequence[Learner]:
        return (self.search,) if self.search.steps_per_round else ()

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner not in (context.update, self.search):
            return None
        pick = self.search.select(context, step)
        states = self.source.sample_states(context, step, pick.words, pick.cond)
        known, held = "eps_c" if self.search.config.single else "", pick.cond.detach()
        return {
            "student": Query(states, held if self.scored else pick.cond, "student", prompts=pick.words),
            "eps_c": Query(states, held, "teacher", known=known),
        }

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = context.weigh_loss(queries["student"].states.t, self.space)
        errors = weighted_errors(predictions["student"], predictions["eps_c"], weight)
        if not self.scored or self.search.last is None:
            return errors.mean()
        return errors.mean() + estimate_by_score(errors, self.search.last[1].log_probs.to(errors))

    def collect_metadata(self) -> dict[str, Any]:
        return self.search.collect_metadata()
