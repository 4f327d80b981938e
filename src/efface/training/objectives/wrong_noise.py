"""A wrong noise is learned on pictures of the target: the current answer to another prompt, or uniform noise.

L_f = || eps_th(x_t, c_f) - eps_f ||^2 with eps_f = sg eps_th(x_t, c_m), c_m another concept (random label; SalUn and
EraseDiff_rl), or eps_f ~ U[0, 1)^d (EraseDiff_noise), x_t the target's pictures, noised. arXiv 2401.05779, 2310.12508.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, final

import torch
from torch import Tensor

from ...functional.losses import weighted_mse
from ...functional.schedules import Space, convert
from ..interfaces import LossRole, Query, Source, States, Step, Term
from ..trainer import Trainer

Wrong = Literal["label", "uniform", "uniform-noised"]


@final
class WrongNoise(Term):
    """EraseDiff's objective, at states of `source`, measured in `space`.

    Args:
        labels: prompts of which one a turn is c_m.
        wrong: "label"; "uniform", of the target alone; "uniform-noised", with x_t made of the same uniform noise, as in
            the authors' code: then `source` must noise uniformly.
    """

    role: LossRole = "erase"

    def __init__(self, source: Source, labels: Sequence[str], wrong: Wrong, space: Space) -> None:
        if wrong not in ("label", "uniform", "uniform-noised"):
            raise ValueError(f"no wrong noise {wrong!r}; there are label, uniform, uniform-noised")
        if wrong == "label" and not labels:
            raise ValueError("a random label needs another concept to take it from; give an anchor")
        self.source, self.labels = source, tuple(labels)
        self.space: Space = space
        self.wrong: Wrong = wrong

    def prepare(self, trainer: Trainer) -> None:
        self.source.expect(trainer.targets())

    def queries(self, trainer: Trainer, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not trainer.update:
            return None
        prompts = trainer.prompts(step, [trainer.erasure.targets[i] for i in step.targets])
        cond = trainer.model.encode(prompts)
        states = self.source.sample_states(trainer, step, prompts, cond)
        if self.wrong == "uniform-noised" and "noise" not in states.known:
            raise ValueError("'uniform-noised' learns the noise that was added to pictures; trajectories have none")
        if self.wrong == "label":
            label = self.labels[int(torch.randint(len(self.labels), (), generator=step.generator))]
            other = [label] * len(prompts)
            wrong = Query(states, trainer.model.encode(other), "student", prompts=other)
        else:
            if self.wrong == "uniform":
                noise = torch.rand(states.x.shape, generator=step.generator).to(states.x)
                said = convert(noise, states.x, trainer.model.alpha_bar(states.t), "eps", trainer.model.space)
                states = States(states.x, states.t, {"noise": said})
            wrong = Query(states, cond, "teacher", known="noise")
        return {"student": Query(states, cond, "student", prompts=prompts), "wrong": wrong}

    def loss(self, trainer: Trainer, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = trainer.weight(queries["student"].states.t, self.space)
        return weighted_mse(predictions["student"], predictions["wrong"].detach(), weight)
