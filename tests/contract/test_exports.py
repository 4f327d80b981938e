"""Architecture × format: an edit of every form, written and read by the format's own reader, or refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from efface import methods
from efface.api.exporting import write_export
from efface.edits.deltas import pack
from efface.edits.edit import Edit
from efface.interchange.fitting import KOHYA
from efface.interchange.formats import FORMATS, READERS, WHOLE, Format
from efface.interchange.names import is_matrix
from efface.models.architectures import ARCHITECTURES
from efface.models.base import Model
from export_table import read_page
from lora_fixtures import edit_with, list_matrices
from tiny_fits import FLOWS, KINDS, list_served

CELLS = [(kind, format) for kind in ARCHITECTURES for format in FORMATS if kind in READERS[format]]
REFUSED = [(kind, format) for kind in ARCHITECTURES for format in FORMATS if kind not in READERS[format]]


@cache
def open_kind(kind: str) -> Model:
    return {**KINDS, **FLOWS}[kind]()


def build_mixed(model: Model, format: Format) -> Edit:
    """New values, factors and masks of every matrix of the denoiser that the format has a place for, a third each."""
    names = [name for name in list_matrices(model, f"{model.denoiser}.") if is_matrix(model.owners[name])]
    if format == "kohya":
        names = [name for name in names if name.startswith(KOHYA.get(model.architecture, ("",)))]
    if model.architecture == "flux" and format == "kohya":
        # Of single blocks diffusers converts the published width alone.
        names = [name for name in names if ".transformer_blocks." in name]
    rng = torch.Generator().manual_seed(3)
    values: dict[str, torch.Tensor] = {}
    for i, name in enumerate(names):
        weight = model.weights[name].detach()
        out, wide = weight.flatten(1).shape
        if i % 3 == 0:
            values[name] = weight + 0.1 * torch.randn(weight.shape, generator=rng)
        elif i % 3 == 1:
            values[f"{name}:down"] = torch.randn(2, wide, generator=rng)
            values[f"{name}:up"] = 0.1 * torch.randn(out, 2, generator=rng)
        else:
            values[f"{name}:mask"] = pack(torch.rand(weight.shape, generator=rng) > 0.2)
    return edit_with(model, values)


@pytest.mark.parametrize(("kind", "format"), CELLS)
def test_an_edit_of_every_form_is_read_by_the_formats_reader(kind: str, format: Format, tmp_path: Path) -> None:
    model = open_kind(kind)
    edit = build_mixed(model, format)
    out = tmp_path / ("x" if format == "diffusers" else "x.safetensors")
    made = write_export(
        model, edit, out, format=format, energy=None if format in (*WHOLE, "comfy") else 1.0, pictures=0
    )
    assert made.about["matched"] == len(edit.names) > 3
    assert format in WHOLE or made.about["residual"] < 1e-5
    exact = format == "comfy" or (kind == "flux" and format == "single-file")  # at another width than the published
    assert ("efface import" if exact else READERS[format][kind]) in made.about["reader"]


@pytest.mark.parametrize(("kind", "format"), REFUSED)
def test_a_format_without_a_place_is_refused_with_what_would_work(kind: str, format: Format, tmp_path: Path) -> None:
    model = open_kind(kind)
    edit = edit_with(model, {name: w + 1 for name, w in list(model.weights.items())[:1]})
    with pytest.raises(ValueError, match=rf"--format {format} can't hold a model of the kind {kind}, .*diffusers"):
        write_export(model, edit, tmp_path / "x.safetensors", format=format)
    assert list(tmp_path.iterdir()) == []


def test_the_page_has_a_cell_for_every_method_and_architecture() -> None:
    page = read_page()
    assert page.keys() == {(name, kind) for name in methods.list_names() for kind in ARCHITECTURES}
    assert all((cell == "no") == (name not in list_served(kind)) for (name, kind), cell in page.items())
