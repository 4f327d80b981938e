"""Guidance that was distilled into a network, which reads the guidance scale as an input."""

from __future__ import annotations

import torch

from ..base import Model
from ..cond import Cond
from ..denoiser import Scale
from ..guider import GuidedSampling

GUIDANCE = "guidance"
"""The scale [n, 1] that the network reads."""


class GuidanceInput(Model):
    """An adapter whose conditions hold the guidance scale; without `distilled_guidance` it is like any other."""

    distilled_guidance: bool = False
    """Whether the network reads the guidance scale, so that guidance costs no second prediction."""
    true_guidance: float = 1.0
    """The scale of classifier-free guidance by two predictions, beside the scale that the network reads; 1 is none."""

    @property
    def classifier_free(self) -> bool:
        return self.true_guidance != 1 if self.distilled_guidance else self.has_uncond

    def with_scale(self, cond: Cond) -> Cond:
        """Adds the model's own guidance scale to the conditions, where the network reads one."""
        if not self.distilled_guidance:
            return cond
        return cond.with_extra({GUIDANCE: torch.full((len(cond), 1), self.defaults.guidance, device=self.device)})

    def begin_sampling(self, cond: Cond, uncond: Cond, guidance: Scale) -> GuidedSampling:
        if not self.distilled_guidance:
            return Model.begin_sampling(self, cond, uncond, guidance)
        told, empty = cond, uncond
        if isinstance(guidance, torch.Tensor) or guidance != self.defaults.guidance:
            # Otherwise the conditions themselves hold the model's own scale.
            own = cond.extra[GUIDANCE]
            scale = torch.as_tensor(guidance).to(own).view(-1, 1).expand_as(own)
            told, empty = (each.with_extra({GUIDANCE: scale}) for each in (told, empty))
        return Model.begin_sampling(self, told, empty, self.true_guidance)
