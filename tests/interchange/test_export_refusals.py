"""Exports of whole models, what is refused before any work, and what is left where the work fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import efface
from efface.api.exporting import write_export
from efface.edits.edit import Edit
from efface.models import consumer
from efface.models.base import Model
from lora_fixtures import build_dense, build_low_rank, edit_with
from tiny import tiny_model
from tiny_pixart import tiny_pixart
from tiny_sdxl import tiny_sdxl

ARCHITECTURES: dict[str, Callable[[], Model]] = {"sd": tiny_model, "sdxl": tiny_sdxl, "pixart": tiny_pixart}


@pytest.mark.parametrize(
    "kind", ["sd-diffusers", "sd-single-file", "sdxl-diffusers", "sdxl-single-file", "pixart-diffusers"]
)
def test_a_whole_model_is_opened_and_compared(kind: str, tmp_path: Path) -> None:
    kind, _, format = kind.partition("-")
    model = ARCHITECTURES[kind]()
    edit = build_dense(model, "attn2")
    out = tmp_path / ("x.safetensors" if format == "single-file" else "x")
    made = write_export(model, edit, out, format=format)
    assert made.about["gap"]["largest"] == 0 < made.about["gap"]["edit"]
    assert made.about["matched"] == len(edit.names)
    assert made.about["reader"].endswith("from_single_file" if format == "single-file" else "from_pretrained")
    assert json.loads(made.sidecar.read_text()) == made.about
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        {out.name, "x.json"} if format == "single-file" else {"x"}
    )


def test_a_reader_that_leaves_a_weight_out_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    edit = build_low_rank(model, "attn2")
    whole = consumer.read_lora
    monkeypatch.setattr(consumer, "read_lora", lambda model, loaded: list(whole(model, loaded))[1:])
    with pytest.raises(
        ValueError, match=r"matches 15 of 16 weights in x.safetensors and leaves out 'unet.*--format kohya, comfy or"
    ):
        write_export(model, edit, tmp_path / "x.safetensors", format="lora")
    monkeypatch.setattr(consumer, "read_lora", lambda model, loaded: ((n, 2 * d) for n, d in whole(model, loaded)))
    with pytest.raises(ValueError, match=r"makes another change of unet\S+ from x.safetensors, off by 100.0%"):
        write_export(model, edit, tmp_path / "x.safetensors", format="lora")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    model, out = tiny_model(), tmp_path / "x.safetensors"
    edit = build_dense(model, "attn2")
    guide = Edit({}, {**edit.meta, "guide": {"name": "sld", "arguments": {}}})
    norms = edit_with(model, {"unet.conv_norm_out.weight": model.weights["unet.conv_norm_out.weight"] + 1})
    pixart = tiny_pixart()
    for base, asked, how, says in (
        (model, guide, {}, r"is a guide \(sld\)"),
        (model, edit, {"rank": 0}, "--rank is at least 1, got 0"),
        (model, edit, {"rank": 99}, "--rank 99 is above every changed matrix; 16 holds all of the change"),
        (model, edit, {"rank": 2, "energy": 0.5}, "say the same thing twice"),
        (model, edit, {"energy": 0.0}, "--energy is a share above 0"),
        (model, edit, {"pictures": -1}, "--pictures is a number"),
        (tiny_model(seed=1), edit, {}, "open the base that it was made for"),
        (model, edit_with(model, {}), {}, "changes no matrix"),
        (model, norms, {}, r"changes no matrix \(unet.conv_norm_out.weight\)"),
        (
            pixart,
            build_low_rank(pixart, "attn2"),
            {},
            "--format lora can't hold a model of the kind pixart, .*; --format diffusers would",
        ),
        (
            pixart,
            build_low_rank(pixart, "attn2"),
            {"format": "kohya"},
            "--format kohya can't hold a model of the kind pixart",
        ),
        (model, edit, {"format": "diffusers"}, "does not suit --format diffusers"),
        (model, edit, {"format": "single-file", "rank": 3}, "holds the whole model"),
    ):
        with pytest.raises(ValueError, match=says):
            write_export(base, asked, out, **{"format": "lora", **how})
    (tmp_path / "x.json").touch()
    with pytest.raises(FileExistsError, match=r"x.json, which would describe the export, exists already"):
        write_export(model, edit, out, format="lora")
    out.touch()
    with pytest.raises(FileExistsError, match="name a file that does not"):
        write_export(model, edit, out, format="lora")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.json", "x.safetensors"]


@pytest.mark.parametrize("format", ["lora", "comfy", "single-file", "diffusers"])
def test_nothing_is_left_where_the_disk_is_full(format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    model = tiny_model()
    monkeypatch.setattr("safetensors.torch.save_file", full)
    monkeypatch.setattr(type(model.pipeline), "save_pretrained", full)
    out = tmp_path / ("x" if format == "diffusers" else "x.safetensors")
    with pytest.raises(OSError, match=r"x(\.safetensors)?: No space left on device"):
        write_export(model, build_dense(model, "attn2"), out, format=format)
    assert list(tmp_path.iterdir()) == []


def test_the_description_of_an_export_that_was_killed_does_not_stop_the_next(tmp_path: Path) -> None:
    """The description gets its name before the file does: a process that is killed between the two leaves it alone."""
    model = tiny_model()
    made = write_export(
        model, build_low_rank(model, "attn2.to_k"), tmp_path / "x.safetensors", format="lora", pictures=0
    )
    whole = made.sidecar.read_bytes()
    made.path.unlink()
    write_export(model, build_low_rank(model, "attn2.to_k"), made.path, format="lora", pictures=0)
    assert made.path.is_file() and made.sidecar.read_bytes() == whole


@pytest.mark.parametrize("format", ["single-file", "diffusers"])
def test_a_whole_model_is_not_begun_where_the_disk_lacks_room(
    format: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    edit = build_low_rank(model, "attn2")
    size = sum(weight.numel() * 4 for weight in model.weights.values())
    monkeypatch.setattr("shutil.disk_usage", lambda _place: SimpleNamespace(free=size - 1))
    monkeypatch.setattr(type(model), "images", None)  # no picture is drawn before
    out = tmp_path / ("x" if format == "diffusers" else "x.safetensors")
    with pytest.raises(OSError, match=r"cannot write .*x.*: it takes 0.\d MB or more, and the disk has 0.\d MB free"):
        write_export(model, edit, out, format=format)
    edit.export(model, tmp_path / "edited")
    with pytest.raises(OSError, match="it takes"):
        efface.revert(model, tmp_path / "edited", edit, tmp_path / "again")
    assert [p.name for p in tmp_path.iterdir()] == ["edited"]
