"""The diagnosis of concept neurons: which neurons an erasure switched off, and which an adversarial prompt activates.

Pruning for Robust Concept Erasing (Yang et al., arXiv 2405.16534) finds that the neurons with the highest correlation
are far more sensitive than others. The formulas are in `efface.functional.neurons`. All models are compared at the same
states: guided trajectories of the untouched base under the concept's prompt, at a fixed list of timesteps. One
difference to the paper: its neurons are indexed by layer, channel and timestep; ours by layer and channel, averaged
over timesteps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..concept import check_choice
from ..edits.edit import Edit
from ..functional.neurons import (
    Contrast,
    find_strongest,
    measure_change,
    measure_contrast,
    measure_correlation,
    measure_relative_change,
)
from ..functional.rates import bootstrap
from ..models.base import Model
from ..models.hooks import activations as watch
from ..plurals import write_count

Correlation = Literal["signed", "absolute"]


@dataclass(frozen=True, kw_only=True)
class NeuronConfig:
    """The settings of the diagnosis."""

    layers: str = watch.LAYERS
    """A regular expression that is searched in the layers' names."""
    seeds: int = 8
    """Number of start noises; intervals resample them."""
    points: int = 5
    """Number of timesteps, spread evenly over the trajectory."""
    steps: int | None = None
    guidance: float | None = None
    top: float = 0.05
    """The share of neurons, those with the largest correlation, that count as the concept's."""
    correlation: Correlation = "signed"
    """How rho is computed: "signed", the paper's, in which a decrease counts and an increase counts against it; or
    "absolute", ours, in which either change counts."""
    relative: bool = False
    """Whether sensitivity is measured in units of each neuron's activation under the plain prompt."""
    draws: int = 2000
    """Number of random sets of neurons with which the concept's are compared."""
    seed: int = 0
    """Seed of the start noises and of the random sets."""

    def __post_init__(self) -> None:
        for name in ("seeds", "points", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        check_choice("correlation", self.correlation, get_args(Correlation))
        if not 0 < self.top < 1:
            raise ValueError(f"the share of neurons is above 0 and below 1, got {self.top:g}")


@dataclass(frozen=True)
class Sensitivity:
    """How much adversarial prompts change the neurons of one model."""

    delta: Sequence[float]
    """The sensitivity of every neuron."""
    interval: tuple[float, float] | None
    """The 95 % interval of the concept neurons' mean, which resamples start noises; None with fewer than two."""
    any_layer: Contrast
    """The concept neurons compared with random ones."""
    same_layers: Contrast
    """The concept neurons compared with random ones, of which each layer has as many."""


@dataclass(frozen=True)
class Diagnosis:
    """The result of a diagnosis."""

    neurons: Sequence[str]
    """The names of the neurons, LAYER/CHANNEL."""
    timesteps: Sequence[int]
    rho: Sequence[float]
    """The correlation of every neuron with the concept."""
    chosen: Sequence[int]
    """The indices of the neurons with the largest correlation, largest first."""
    models: Mapping[str, Sensitivity]
    """The base, and the model under each edit."""


def diagnose(
    model: Model,
    edits: Mapping[str, Edit],
    concept: str,
    adversarial: Sequence[str],
    how: NeuronConfig,
    batch: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Measures rho between the base and the first edit, and delta in the base and under every edit.

    Raises:
        ValueError: there is no adversarial prompt or no edit, an edit changes no weights, or no layer has the name;
            this is raised before work starts. A layer has no output for each row of a batch.
        ArithmeticError: activations are NaN or infinite.
    """
    if not edits:
        raise ValueError("a diagnosis compares the base with at least one edit; got none")
    if not adversarial or not concept or concept in adversarial:
        raise ValueError("a diagnosis compares the concept's prompt with at least one other, which is adversarial")
    for name, edit in edits.items():
        edit.check(model)
        if not edit.names:
            raise ValueError(f"{name} changes no weights but guides drawing: no neuron differs under it")
    looked_at = watch.find_layers(model, how.layers)
    steps = model.defaults.steps if how.steps is None else how.steps
    if how.points > steps:
        raise ValueError(
            f"{write_count(how.points, 'timestep')} of a trajectory of {steps}; fewer, or more steps, would work"
        )
    states, t = _draw_states(model, concept, how)
    seen: dict[str, list[Tensor]] = {}
    total = (1 + len(edits)) * (1 + len(adversarial))
    for name, edit in {"base": None, **edits}.items():
        seen[name] = []
        with edit.apply(model) if edit else nullcontext():
            for prompt in (concept, *adversarial):
                cond = model.encode([prompt])
                seen[name].append(watch.measure_activations(model, looked_at, states, t, cond, batch))
                if on_progress:
                    on_progress(sum(map(len, seen.values())), total)
    correlate = measure_correlation if how.correlation == "signed" else measure_change
    rho = correlate(seen["base"][0], seen[next(iter(edits))][0])
    chosen = find_strongest(rho, how.top)
    belongs = [i for i, layer in enumerate(looked_at) for _ in range(layer.neurons)]
    return Diagnosis(
        neurons=[f"{layer.name}/{channel}" for layer in looked_at for channel in range(layer.neurons)],
        timesteps=[int(each) for each in t[: how.points].tolist()],
        rho=rho.tolist(),
        chosen=chosen.tolist(),
        models={name: _measure_sensitivity(rows, chosen, belongs, how) for name, rows in seen.items()},
    )


def _draw_states(model: Model, concept: str, how: NeuronConfig) -> tuple[Tensor, Tensor]:
    """States [seeds * points, c, h, w] and their timesteps [seeds * points]; those of one seed are consecutive."""
    # Far from the seeds that pictures are trained on and judged with.
    first = 2**42 + how.seed * 1_000_003
    seeds = [first + i for i in range(how.seeds)]
    cond, uncond = model.encode([concept]), model.encode([""])
    draw = model.sample(cond, uncond, seeds, steps=how.steps, guidance=how.guidance, record=True, sampler="ddim")
    picks = [int((i + 0.5) * len(draw.t) / how.points) for i in range(how.points)]
    return draw.states[picks].transpose(0, 1).flatten(0, 1), draw.t[picks].repeat(how.seeds)


def _measure_sensitivity(
    rows: Sequence[Tensor], chosen: Tensor, belongs: Sequence[int], how: NeuronConfig
) -> Sensitivity:
    """Computes the sensitivity from activations [seeds * points, neurons] under the plain and adversarial prompts."""
    measure = measure_relative_change if how.relative else measure_change
    plain, others = rows[0], rows[1:]
    by_seed = [
        torch.stack([measure(p, o) for p, o in zip(plain.chunk(how.seeds), other.chunk(how.seeds), strict=True)])
        for other in others
    ]
    each = torch.stack(by_seed).mean(0)
    delta, concept = each.mean(0), each[:, chosen].mean(1)
    rng = torch.Generator().manual_seed(how.seed)
    return Sensitivity(
        delta=delta.tolist(),
        interval=bootstrap({str(i): [value] for i, value in enumerate(concept.tolist())}, seed=how.seed),
        any_layer=measure_contrast(delta, chosen, how.draws, rng),
        same_layers=measure_contrast(delta, chosen, how.draws, rng, belongs),
    )
