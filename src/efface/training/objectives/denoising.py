"""The denoising loss on noised pictures, under their own caption or another one: L = || eps_th(x_t, c) - eps ||^2.

Under their own caption it is the loss of fine-tuning, by which EraseDiff and SalUn preserve the pictures to retain.
Descending its negative is gradient ascent (NegGrad). With pictures of the anchor that are captioned as the target it is
the noise-based concept ablation (arXiv 2303.13516, eq. 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from ...functional.losses import weighted_mse
from ...functional.schedules import Space
from ..interfaces import Context, LossRole, Query, Source, Step, Term


@final
class Denoising(Term):
    """The denoising loss at states of `source`, measured in `space`.

    Args:
        source: a source of pictures.
        space: the space of the squared error.
        role: the role of the loss.
        shown: prompts of the pictures, one of which each row takes at random; by default the row's target.
        captions: the caption of each of `shown`, by default itself; "{}" in it stands for the row's target.
        sign: 1 descends the loss, -1 ascends it.
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

    def prepare(self, context: Context) -> None:
        self.source.expect(self.shown or context.list_all_target_prompts())

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        if step.learner is not context.update:
            return None
        shown = context.list_target_prompts(step)
        if self.shown:
            picks = torch.randint(len(self.shown), (len(shown),), generator=step.generator).tolist()
            shown = [self.shown[i] for i in picks]
        own = [context.erasure.targets[i] for i in step.targets]
        pairs = zip(shown, own, strict=True)
        prompts = [self.captions[s].replace("{}", target) if s in self.captions else s for s, target in pairs]
        cond = context.model.encode(prompts)
        states = self.source.sample_states(context, step, shown, context.model.encode(shown))
        if "noise" not in states.known:
            raise ValueError("denoising needs the noise that was added to pictures; trajectories have none")
        return {
            "student": Query(states, cond, "student", prompts=prompts),
            "noise": Query(states, cond, "teacher", known="noise"),
        }

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        weight = context.weigh_loss(queries["student"].states.t, self.space)
        return self.sign * weighted_mse(predictions["student"], predictions["noise"], weight)
