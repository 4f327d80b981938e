"""The lines to copy on the page on models run as they are printed, on tiny models of the same classes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import efface
from efface.cli.app import main
from efface.edits.edit import Edit
from tiny import tiny_pipeline
from tiny_flux import tiny_flux_pipeline
from tiny_sd3 import tiny_sd3_pipeline
from tiny_sdxl import tiny_sdxl_pipeline

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
PIPELINES: dict[str, Callable[[], Any]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": tiny_pipeline,
    "stabilityai/stable-diffusion-xl-base-1.0": tiny_sdxl_pipeline,
    "stabilityai/stable-diffusion-3.5-medium": tiny_sd3_pipeline,
    "black-forest-labs/FLUX.1-dev": tiny_flux_pipeline,
}
"""For each hub id of the page, a tiny random pipeline of the class that its repository holds."""
SHORT = ["--steps", "2", "--draw-steps", "2"]
"""Few steps, in the place of the hundreds of the methods' own."""


def read_lines() -> list[list[str]]:
    (block,) = re.findall(r"## Commands to copy\n\n```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    return [shlex.split(line)[1:] for line in block.splitlines()]


LINES = read_lines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which each hub id is the path of a pipeline's folder, so that nothing is fetched."""
    made = tmp_path_factory.mktemp("hub")
    for name, build in PIPELINES.items():
        build().save_pretrained(made / name)
    yield made


def test_every_named_family_has_a_line() -> None:
    assert [words[words.index("--model") + 1] for words in LINES] == list(PIPELINES)


@pytest.mark.filterwarnings("ignore:.*prompts? exceeds? 8 tokens")  # of the tiny tokenizers
@pytest.mark.parametrize("words", LINES, ids=lambda words: words[3].split("/")[1])
def test_a_line_writes_an_edit_of_its_model(
    words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    if "--offload" in words and not torch.cuda.is_available():
        # On a machine without a GPU the flag is refused before the model is read; tests/cuda/ run it on a stand-in.
        assert main([*words, *SHORT]) == 2
        assert "there is none" in capsys.readouterr().err
        words = [word for word in words if word != "--offload"]
    out = folder / words[words.index("--out") + 1]
    assert main([*words, *SHORT]) == 0
    edit = Edit.load(out)
    out.unlink()
    model = efface.load(words[words.index("--model") + 1], dtype="bf16")
    with edit.apply(model):
        assert all(torch.isfinite(value.float()).all() for value in edit.values.values())
    assert list(edit.meta["request"]["targets"]) == ["Van Gogh"] and edit.meta["arguments"]["steps"] == 2
    assert edit.meta["arguments"]["space"] == model.space
    assert any(value.any() for key, value in edit.values.items() if not key.endswith(":down"))


@pytest.mark.parametrize("given", [{}, {"space": "eps"}])
def test_a_model_suggests_what_no_flag_says(
    given: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A distilled flow is drawn in its few steps without guidance, and errors are velocities unless `--space` says."""
    tiny_flux_pipeline(dev=False).save_pretrained(tmp_path / "schnell")
    flags = [word for name, value in given.items() for word in (f"--{name}", value)]
    out = tmp_path / "x.safetensors"
    asked = ["--model", str(tmp_path / "schnell"), "--target", "cat", "--anchor", "dog", "--steps", "1", "--out"]
    assert main(["erase", "gem", *asked, str(out), *flags]) == 0
    made, model = Edit.load(out).meta["arguments"], efface.load(tmp_path / "schnell")
    assert (made["guidance"], made["draw_steps"]) == (1.0, model.defaults.steps)
    assert made["space"] == given.get("space", "flow")
    told = "defaults for this model: " + ("guidance" if given else "space = flow, guidance")
    assert f"{told} = 1.0, draw_steps = {model.defaults.steps}" in capsys.readouterr().err
