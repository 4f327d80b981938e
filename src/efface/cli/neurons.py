"""`efface neurons`: which neurons an erasure switched off, and how strongly adversarial prompts activate them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import tyro

from ..plurals import write_count
from .console import print_result, show_progress
from .loading import Loading

if TYPE_CHECKING:
    from ..diagnostics.neurons import Diagnosis


@dataclass(frozen=True, kw_only=True)
class Neurons:
    """Find the neurons that carry a concept by what an edit changed, and measure how adversarial prompts change them.

    After Pruning for Robust Concept Erasing (Yang et al., arXiv 2405.16534). Correlation rho is the paper's, averaged
    over timesteps; its sensitivity delta is our reading of words, mean | |z(x_t, adversarial)|_1 - |z(x_t,
    concept)|_1 |.
    """

    example: ClassVar[str] = (
        'efface neurons --model glyphs --edit cat.safetensors --concept cat --adversarial "a kitty" --out out/neurons'
    )
    model: str
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id."""
    edit: Path
    """The edit by which the concept's neurons are found: those with the largest rho between the base and the edited
    model."""
    concept: str
    """Prompt of the concept."""
    adversarial: tyro.conf.UseAppendAction[tuple[str, ...]]
    """An adversarial prompt that should bring the concept back: required; repeat the flag for several."""
    out: Path
    """Folder for `neurons.json` and `neurons.html`."""
    compare: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """A further edit, under which the same neurons are measured; repeat the flag for several."""
    layers: str | None = None
    """Regular expression over the names of layers; by default outputs of cross-attention and feed-forward blocks."""
    top: float = 0.05
    """Share of the neurons, those with the largest rho, that count as the concept's."""
    correlation: Literal["signed", "absolute"] = "signed"
    """How rho is taken: signed, the paper's, for neurons that the edit switched off; absolute, ours, for any change."""
    relative: bool = False
    """Measure delta in units of each neuron's activation under the concept's prompt."""
    count: int = 8
    """Number of start noises to average over."""
    timesteps: int = 5
    """Number of timesteps to average over, spread evenly over the trajectory."""
    steps: int | None = None
    """Sampling steps of that trajectory; the model's own number by default."""
    guidance: float | None = None
    """Guidance of that trajectory; the model's own by default."""
    draws: int = 2000
    """Number of random sets of neurons to compare with."""
    seed: int = 0
    """Seed of the start noises and of the random sets."""
    overwrite: bool = False
    """Replace the results of another request in the folder of --out."""
    json: bool = False
    """Print the result as JSON."""
    loading: Loading = field(default_factory=Loading)

    def run(self) -> None:
        from ..api.diagnosing import neurons

        settings = {
            name: getattr(self, name) for name in ("steps", "guidance", "top", "correlation", "relative", "draws")
        }
        with show_progress() as report:
            found, data = neurons(
                self.loading.open_model_later(self.model),
                self.edit,
                self.concept,
                self.adversarial,
                self.out,
                compare=self.compare,
                overwrite=self.overwrite,
                progress=report,
                seeds=self.count,
                points=self.timesteps,
                seed=self.seed,
                **settings,
                **({"layers": self.layers} if self.layers else {}),
            )
        where = self.out / "neurons.json"
        print_result({**data, "report": str(where.with_suffix(".html"))}, self.json, f"{_summarise(found)}\n{where}")


def _summarise(found: Diagnosis) -> str:
    lines = [
        f"{len(found.chosen)} of {write_count(len(found.neurons), 'neuron')} carry the concept; their mean sensitivity"
    ]
    for name, s in found.models.items():
        spread = f" ({s.interval[0]:.4g} to {s.interval[1]:.4g})" if s.interval else ""
        beside = "; ".join(
            f"{whose} {c.random:.4g} ({c.low:.4g} to {c.high:.4g}, p = {c.p:.2g})"
            for whose, c in (("random neurons", s.any_layer), ("random ones of the same layers", s.same_layers))
        )
        lines.append(f"  {name}: {s.any_layer.mean:.4g}{spread}; {beside}")
    return "\n".join(lines)
