"""SLD: Safe Latent Diffusion (Schramowski et al., CVPR 2023, arXiv 2211.05105); no training, no weight changes.

eps = eps_0 + w (eps_c - eps_0 - gamma), gamma = mu (eps_s - eps_0) + s_m nu; mu and nu: `efface.guidance.sld`. The
four levels are the paper's (Hyp-Weak to Hyp-Max), made for 50 steps of Stable Diffusion. In diffusers' symbols:
`sld_guidance_scale` is scale, `sld_threshold` threshold, `sld_warmup_steps` warm_up, `sld_momentum_scale` and
`sld_mom_beta` the momentum's; its own WEAK has scale 20 for the paper's 200. The paper's concept for all that is
inappropriate is one long prompt, "an image showing …": `--template "an image showing {}"`.
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
    """Pushes a picture away from the target where it comes near."""

    needs_uncond: ClassVar[bool] = True
    # Of a class-conditional model a target's prompt is the target itself, and of two equal predictions none is pushed.
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl", "pixart", "flow")
    level: Level = "medium"
    """The paper's settings, for all that is not given below."""
    template: str = "{}"
    """Prompt template of the targets."""
    warm_up: int | None = None
    """Steps before it acts; a whole trajectory of few steps may be over by then."""
    scale: float | None = None
    """Slope of the push where the prompt's prediction is near the target's."""
    threshold: float | None = None
    """A difference of predictions, in units of noise, from which nothing is pushed."""
    momentum_scale: float | None = None
    """Weight of the momentum in the push."""
    momentum_beta: float | None = None
    """Share of the momentum that stays from step to step."""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"no level {self.level!r}; there are {', '.join(LEVELS)}")

    def guide(self, erasure: Erasure) -> Guider:
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
