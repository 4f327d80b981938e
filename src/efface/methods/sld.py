"""SLD: Safe Latent Diffusion (Schramowski et al., CVPR 2023, arXiv 2211.05105); no training, no weight changes.

eps = eps_0 + w (eps_c - eps_0 - gamma) with gamma = mu (eps_s - eps_0) + s_m nu; `efface.guidance.sld` defines mu and
nu. The four levels are the paper's (Hyp-Weak to Hyp-Max), which were made for 50 steps of Stable Diffusion. In
diffusers, our scale is `sld_guidance_scale`, threshold is `sld_threshold`, warm_up is `sld_warmup_steps`,
momentum_scale is `sld_momentum_scale` and momentum_beta is `sld_mom_beta`; its level WEAK has scale 20 where the paper
has 200. The paper describes all inappropriate content by one long prompt, "an image showing …": `--template "an image
showing {}"`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from ..concept import Erasure
from ..guidance import sld
from ..models.guider import Guider
from .guided import Guided

Level = Literal["weak", "medium", "strong", "max"]
LEVELS: dict[str, dict[str, float]] = {
    "weak": {"warm_up": 15, "scale": 200, "threshold": 0.0, "momentum_scale": 0.0, "momentum_beta": 0.0},
    "medium": {"warm_up": 10, "scale": 1000, "threshold": 0.01, "momentum_scale": 0.3, "momentum_beta": 0.4},
    "strong": {"warm_up": 7, "scale": 2000, "threshold": 0.025, "momentum_scale": 0.5, "momentum_beta": 0.7},
    "max": {"warm_up": 0, "scale": 5000, "threshold": 1.0, "momentum_scale": 0.5, "momentum_beta": 0.7},
}


@final
@dataclass(frozen=True, kw_only=True)
class SLD(Guided):
    """Pushes a picture away from the target where the two predictions are similar."""

    needs_uncond: ClassVar[bool] = True
    # In a class-conditional model the target's prompt is its class: both predictions are equal, and nothing is pushed.
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl", "pixart", "flow")
    level: Level = "medium"
    """The paper's level, which gives all settings below that are not set."""
    template: str = "{}"
    """Prompt template of the targets."""
    warm_up: int | None = None
    """Number of steps before the guidance acts; a trajectory of fewer steps is not changed at all."""
    scale: float | None = None
    """Slope of the push where the prompt's prediction is near the target's."""
    threshold: float | None = None
    """The difference between the two predictions, in units of noise, from which on nothing is pushed."""
    momentum_scale: float | None = None
    """Weight of the momentum in the push."""
    momentum_beta: float | None = None
    """Share of the momentum that stays from step to step."""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"no level {self.level!r}; there are {', '.join(LEVELS)}")

    def build_guider(self, erasure: Erasure) -> Guider:
        given = {name: value for name in LEVELS[self.level] if (value := getattr(self, name)) is not None}
        settings = LEVELS[self.level] | given
        return sld.SLD(
            prompt=self.template.format(", ".join(erasure.targets)),
            warm_up=int(settings["warm_up"]),
            scale=settings["scale"],
            threshold=settings["threshold"],
            momentum_scale=settings["momentum_scale"],
            momentum_beta=settings["momentum_beta"],
        )
