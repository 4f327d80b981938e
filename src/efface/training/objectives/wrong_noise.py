"""Trains on pictures of the target with a wrong noise: the student's prediction under another prompt, or uniform noise.

L_f = || eps_th(x_t, c_f) - eps_f ||^2 with eps_f = sg eps_th(x_t, c_m), c_m another concept (random label; SalUn and
EraseDiff_rl), or eps_f ~ U[0, 1)^d (EraseDiff_noise), x_t the target's pictures, noised. arXiv 2401.05779, 2310.12508.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, final

import torch
from torch import Tensor

from ...functional.losses import weighted_mse
from ...functional.schedules import Space, convert, shape_like
from ..interfaces import Context, LossRole, Query, Source, States, Step, Term

Wrong = Literal["label", "uniform", "uniform-noised"]


@final
class WrongNoise(Term):
    """EraseDiff's objective, at states of `source`, measured in `space`.

    Args:
        source: a source of pictures.
        labels: prompts, one of which is c_m in each step.
        wrong: "label" for another prompt's prediction, "uniform" for uniform noise as eps_f alone, "uniform-noised" for
            uniform noise that x_t contains too, as in the authors' code; `source` must then add uniform noise.
        space: the space of the squared error.
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

    def prepare(self, context: Context) -> None:
        self.source.expect(context.list_all_target_prompts())

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        prompts = context.list_target_prompts(step)
        cond = context.model.encode(prompts)
        states = self.source.sample_states(context, step, prompts, cond)
        if self.wrong == "uniform-noised" and "noise" not in states.known:
            raise ValueError("'uniform-noised' learns the noise that was added to pictures; trajectories have none")
        if self.wrong == "label":
            label = self.labels[int(torch.randint(len(self.labels), (), generator=step.generator))]
            other = [label] * len(prompts)
            wrong = Query(states, context.model.encode(other), "student", prompts=other)
        else:
            if self.wrong == "uniform":
                states = _replace_noise(context, step, states)
            wrong = Query(states, cond, "teacher", known="noise")
        return {"student": Query(states, cond, "student", prompts=prompts), "wrong": wrong}

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = context.weigh_loss(queries["student"].states.t, self.space)
        return weighted_mse(predictions["student"], predictions["wrong"].detach(), weight)


def _replace_noise(context: Context, step: Step, states: States) -> States:
    """The states, whose known "noise" is uniform noise in the model's own space.

    At pure noise only a prediction of noise can say another noise than the state's. A row that starts there keeps the
    true one, which has no weight where errors are measured as those of noise.
    """
    level, space = context.model.find_noise_level(states.t), context.model.space
    noise = torch.rand(states.x.shape, generator=step.generator).to(states.x)
    said = convert(noise, states.x, level, "eps", space)
    if space != "eps" and "noise" in states.known:
        said = torch.where(shape_like(level.alpha == 0, said).bool(), states.known["noise"].to(said), said)
    return States(states.x, states.t, {"noise": said})
