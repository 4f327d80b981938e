"""The page on models says what the toolkit says: the table of methods, the memory of a published size."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel

from efface.cli.listing import list_served, tabulate
from efface.interchange.formats import FORMATS, READERS
from efface.models.architectures import ARCHITECTURES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
sys.path.insert(0, str(ROOT / "tests" / "planning"))
from real_sizes import MODELS, Needs, fit_in, format_row, measure  # noqa: E402  (a file beside the tests)


def test_the_table_of_methods_is_the_computed_one() -> None:
    assert tabulate(list_served()) in PAGE


def test_the_table_of_readers_is_the_declared_one() -> None:
    rows = [
        {"architecture": kind, **{f"`{format}`": READERS[format].get(kind, "refused") for format in FORMATS}}
        for kind in ARCHITECTURES
    ]
    assert tabulate(rows) in (ROOT / "docs" / "how-to" / "files.md").read_text(encoding="utf-8")


def test_every_architecture_is_described() -> None:
    assert all(f"\n| {kind} | " in PAGE for kind in ARCHITECTURES)


def test_the_memory_of_stable_diffusion_is_what_its_shapes_say() -> None:
    assert format_row("SD 1.5", measure("SD 1.5")) in PAGE
    assert all(f"\n| {name} | " in PAGE for name in MODELS)


def test_the_weights_of_the_largest_are_counted() -> None:
    with torch.device("meta"):
        flux = FluxTransformer2DModel(guidance_embeds=True)
    size = 2 * sum(parameter.numel() for parameter in flux.parameters())
    assert f"| FLUX.1-dev | {size / 1e9:.2f} GB |" in PAGE


@pytest.mark.parametrize(
    ("gpu", "flags"), [(8, "no"), (16, "`--checkpointing --offload`"), (24, "`--checkpointing`"), (48, "as it is")]
)
def test_the_fewest_flags_that_fit_are_named(gpu: int, flags: str) -> None:
    needs = Needs(denoiser=10 << 30, resting=5 << 30, trained=1 << 30, step=20 << 30, checkpointed=2 << 30, drawing=1)
    assert fit_in(needs, gpu) == flags
