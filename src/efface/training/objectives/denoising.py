"""Plain denoising of stored pictures, under their own caption or another: L = || eps_th(x_t, c) - eps ||^2.

Under their own caption it is the training loss that EraseDiff and SalUn hold remain pictures by, and fine-tuning;
descending its negative is gradient ascent (NegGrad); pictures of the anchor captioned as the target make the
noise-based concept ablation (arXiv 2303.13516, eq. 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from ...functional.losses import weighted_mse
from ...functional.schedules import Space
from ..interfaces import LossRole, Query, Source, Step, Term
from ..trainer import Trainer


@final
class Denoising(Term):
    """The loss of training, at states of `source`, measured in `space`.

    Args:
        shown: prompts of the pictures, drawn evenly; the turn's target where there are none.
        captions: what to call each of `shown`; themselves by default, "{}" is the turn's target under its template.
        sign: -1 climbs.
    """

    def __init__(
        self,
        source: Source,
        space: Space,
        role: LossRole,
        shown: Sequence[str] = (),
        captions: Mapping[str, str] | None = None,
        sign: float = 1.0,
    ) -> None:
        self.source, self.role, self.shown, self.sign = source, role, tuple(shown), sign
        self.captions = dict(captions or {})
        self.space: Space = space

    def prepare(self, trainer: Trainer) -> None:
        self.source.expect(self.shown or trainer.targets())

    def queries(self, trainer: Trainer, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not trainer.update:
            return None
        targets = trainer.prompts(step, [trainer.erasure.targets[i] for i in step.targets])
        shown = targets
        if self.shown:
            picks = torch.randint(len(self.shown), (len(targets),), generator=step.generator).tolist()
            shown = [self.shown[i] for i in picks]
        called = [self.captions.get(s, s) for s in shown]
        prompts = [target if name == "{}" else name for name, target in zip(called, targets, strict=True)]
        cond = trainer.model.encode(prompts)
        states = self.source.sample_states(trainer, step, shown, trainer.model.encode(shown))
        if "noise" not in states.known:
            raise ValueError("denoising needs the noise that was added to pictures; trajectories have none")
        return {
            "student": Query(states, cond, "student", prompts=prompts),
            "noise": Query(states, cond, "teacher", known="noise"),
        }

    def loss(self, trainer: Trainer, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = trainer.weight(queries["student"].states.t, self.space)
        return self.sign * weighted_mse(predictions["student"], predictions["noise"], weight)
