"""The concept that is damaged most right now is held in place, searched in a vocabulary (EAP).

L = || eps_th(z, c_a) - eps*(z, c_a) ||^2 with c_a = G(pi) . T, maximised over pi, on trajectories under c_a (Bui et
al., arXiv 2410.15618). As in the authors' code, neither the trajectory nor the frozen prediction carries a gradient to
pi, and what does, the student's condition, is followed straight through the choice. That slope says which way a chosen
word's prediction would change, not how large another word's loss is: where words are far apart it need not lead to the
largest. With `gradient="score"` pi climbs the expected loss itself, by the losses of the words that were chosen.
The start noise has the objective's seeds. These choose among stored trajectories, where there are such: it is then the
objective's own only if as many are stored of a word as of a target. Where the text encoder learns, the student reads
the chosen words anew: then pi can learn by losses alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from torch import Tensor

from ...functional.gumbel import score
from ...functional.losses import weighted_errors
from ...functional.schedules import Space
from ..interfaces import Learner, LossRole, Query, Source, Step, Term
from ..trainer import Trainer
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
        """Whether pi learns by losses alone."""
        return self.search.config.gradient == "score"

    def prepare(self, trainer: Trainer) -> None:
        if self.scored and trainer.config.batch < 2:
            raise ValueError(
                "search-gradient score weighs the words of a batch against each other: give a batch of at least 2, "
                f"got {trainer.config.batch}"
            )
        if trainer.live and not (self.search.config.single and (self.scored or not self.search.steps_per_round)):
            raise ValueError(
                f"{trainer.name} trains a text encoder, which reads a word anew in every step: there is no reading of "
                "a mixture, and no slope back to the choice of the word; take weights of the U-Net, or, where the "
                "method has it, search-gradient score"
            )
        self.search.prepare(trainer)
        if self.search.config.single:
            self.source.expect(self.search.prompts(trainer))

    def searches(self) -> Sequence[Learner]:
        return (self.search,) if self.search.steps_per_round else ()

    def queries(self, trainer: Trainer, step: Step) -> Mapping[str, Query] | None:
        if step.learner not in (trainer.update, self.search):
            return None
        pick = self.search.select(trainer, step)
        states = self.source.sample_states(trainer, step, pick.words, pick.cond)
        known, held = "eps_c" if self.search.config.single else "", pick.cond.detach()
        return {
            "student": Query(states, held if self.scored else pick.cond, "student", prompts=pick.words),
            "eps_c": Query(states, held, "teacher", known=known),
        }

    def loss(self, trainer: Trainer, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = trainer.weight(queries["student"].states.t, self.space)
        errors = weighted_errors(predictions["student"], predictions["eps_c"], weight)
        if not self.scored or self.search.last is None:
            return errors.mean()
        return errors.mean() + score(errors, self.search.last[1].log_probs.to(errors))

    def metadata(self) -> dict[str, Any]:
        return self.search.metadata()
