"""Drawing in an evaluation: the settings, their description, and the pictures of the base and the edited model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..edits.edit import Edit
from ..edits.strength import check_strength
from ..models.base import Model
from ..models.schedule import list_settings
from ..models.trajectory import Sampler
from ..records.report import Drawing
from ..suites.spec import Row
from .asking import TIMEOUT, check_timeout
from .images import ImageSet, draw_images

Progress = Callable[[str, int, int], None]
"""Is called with a stage's name, the number of pictures done, and their total."""


@dataclass(frozen=True)
class Settings:
    """How pictures are drawn, and how long scorers are waited for."""

    steps: int | None = None
    """Sampling steps; the model's own number by default."""
    guidance: float | None = None
    """Guidance; the model's own by default."""
    strength: float = 1.0
    """Strength of the edit; 1 applies it as it was fitted."""
    sampler: Sampler = "own"
    """The scheduler: the model's own, or another on its noise levels."""
    scorer_timeout: float = TIMEOUT
    """Seconds that a call of a scorer may take; pictures that it leaves open have no score."""

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_timeout(self.scorer_timeout)


def describe_drawing(model: Model, settings: Settings, edit: str) -> Drawing:
    """Everything on which this model's pictures depend beside prompt and seed.

    Args:
        model: the model that draws.
        settings: how it draws.
        edit: the sha256 of the edit's file; "" for the untouched base.

    Raises:
        ValueError: the scheduler can't do this number of steps.
    """
    defaults = model.defaults
    steps = defaults.steps if settings.steps is None else settings.steps
    model.list_timesteps(steps, settings.sampler)
    scheduler = model.build_scheduler(settings.sampler)
    computed = str(model.compute or model.dtype).removeprefix("torch.")
    return Drawing(
        model=model.name,
        fingerprint=model.fingerprint(),
        decoder=model.hash_decoder(),
        edit=edit,
        strength=settings.strength,
        steps=steps,
        guidance=defaults.guidance if settings.guidance is None else settings.guidance,
        guidance_rescale=model.guidance_rescale,
        scheduler=type(scheduler).__name__,
        schedule=list_settings(scheduler),
        dtype=str(model.dtype).removeprefix("torch."),
        compute=computed if model.steady is None else f"{computed}, compiled",
        resolution=model.resolution,
    )


@dataclass(frozen=True)
class Drawings:
    """How the pictures of each variant are drawn."""

    settings: Settings
    base: Drawing
    edited: Drawing

    @staticmethod
    def of(model: Model, settings: Settings, edit: str) -> "Drawings":
        """How the untouched base and the edited model draw; `edit` is the sha256 of the edit's file."""
        return Drawings(settings, describe_drawing(model, settings, ""), describe_drawing(model, settings, edit))


def draw_variants(
    model: Model, edit: Edit, rows: Sequence[Row], drawings: Drawings, store: Path, on_progress: Progress
) -> ImageSet:
    """Draws the rows with the untouched base and the edited model; pictures in the image store are not drawn again."""

    def report(stage: str) -> Callable[[int, int], None]:
        return lambda done, total: on_progress(stage, done, total)

    sampler = drawings.settings.sampler
    base = draw_images(model, rows, drawings.base, store, report("drawing the base"), sampler)
    with edit.apply(model, drawings.settings.strength):
        edited = draw_images(model, rows, drawings.edited, store, report("drawing under the edit"), sampler)
    return ImageSet(rows, {"base": base, "edited": edited}, store, model.resolution)
