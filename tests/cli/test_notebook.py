"""In a notebook: bars of long work, pictures as PIL or NumPy has them, and results that say what they are."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import efface
from efface.api.progress import find_notebook, show_progress
from efface.models.adapters.sd import StableDiffusion
from efface.records.attacks import AttackRecord
from efface.records.audit import Audit
from efface.records.report import Estimate


class Handle:
    """What IPython's display gives: shows an object, and shows it again in the same place."""

    def __init__(self, shown: list[str]) -> None:
        self.shown = shown

    def update(self, what: Any) -> None:
        self.shown.append(what._repr_html_())


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the cell that runs shows, in the place of IPython and its kernel."""
    cell: list[str] = []

    def display(what: Any, display_id: bool = False) -> Handle:
        assert display_id
        cell.append(what._repr_html_())
        return Handle(cell)

    ipython, displays = ModuleType("IPython"), ModuleType("IPython.display")
    shell = type("Shell", (), {"kernel": object()})()
    ipython.get_ipython, displays.display = lambda: shell, display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", displays)
    return cell


def test_erasing_shows_its_progress_in_a_notebook(notebook: list[str], eps_model: StableDiffusion) -> None:
    quick: dict[str, Any] = {"steps": 2, "draw_steps": 2, "paths": 1, "source": "frozen"}
    efface.erase(eps_model, "cat", "esd", **quick)
    assert '<progress value="2" max="2" aria-label="erasing (esd)">' in notebook[-1]
    assert "drawing what is trained on" in notebook[-1] and notebook[-1].count("<progress") >= 3
    notebook.clear()
    efface.erase(eps_model, "cat", "esd", progress=False, **quick)
    assert notebook == []


def test_a_notebook_tells_the_time_that_is_left_and_escapes_names(
    notebook: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([float(i) for i in range(0, 100, 3)])
    monkeypatch.setattr("efface.api.progress.time.monotonic", lambda: next(clock))
    with show_progress(None) as report:
        report("<b>", 0, 4)
        report("<b>", 1, 4)
    assert "&lt;b&gt;: 1 of 4, about " in notebook[-1] and "<b>" not in notebook[-1]


def test_a_terminal_has_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_notebook() is None
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert find_notebook() is None


def test_pictures_come_as_a_tensor_an_array_or_pils(eps_model: StableDiffusion) -> None:
    asked: dict[str, Any] = {"seeds": [1, 2], "steps": 2}
    tensor = eps_model.images(["a cat", "a dog"], **asked)
    array = eps_model.images(["a cat", "a dog"], **asked, output="np")
    pictures = eps_model.images(["a cat", "a dog"], **asked, output="pil")
    assert isinstance(array, np.ndarray) and array.shape == (2, 16, 16, 3) and array.dtype == np.uint8
    assert torch.equal(torch.from_numpy(array).permute(0, 3, 1, 2), tensor)
    assert all(isinstance(picture, Image.Image) and picture.mode == "RGB" for picture in pictures)
    assert all(np.array_equal(np.asarray(picture), one) for picture, one in zip(pictures, array, strict=True))


def test_an_unknown_output_is_refused_before_anything_is_drawn(
    eps_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eps_model, "encode", lambda *_: pytest.fail("a prompt was read"))
    with pytest.raises(ValueError, match="output has to be one of 'tensor', 'np', 'pil'; got 'pt'"):
        eps_model.images("a cat", output="pt")  # type: ignore[call-overload]


def build_estimate(value: float | None) -> Estimate:
    return Estimate(value=value, low=0.25, high=0.75, n=8, unscored=0)


def test_attacks_and_audits_say_what_they_found() -> None:
    measure = type("M", (), {"attack": "seeds", "condition": "target", "after": build_estimate(0.5)})
    control = type("M", (), {"attack": "seeds", "condition": "control-kept", "after": build_estimate(0.9)})
    facts: dict[str, Any] = {"targets": ("cat",), "method": "ESD"}
    attacks = AttackRecord.model_construct(**facts, measures=(measure, control), robust=build_estimate(None), alarms=())
    assert repr(attacks) == (
        "<AttackRecord: cat by ESD, shown under seeds 0.5 [0.25, 0.75]; robust not judged; 0 alarms>"
    )
    worst = type("W", (), {"word": "tiger", "part": "worst", "change": build_estimate(0.5)})
    beside = type("W", (), {"word": "car", "part": "control", "change": build_estimate(0.1)})
    audit = Audit.model_construct(**facts, findings=(worst, beside), worst=build_estimate(0.5), ranking=(1, 2, 3))
    assert repr(audit) == (
        "<Audit: cat by ESD; change of the worst of 3 words: tiger 0.5 [0.25, 0.75]; "
        "of all worst words 0.5 [0.25, 0.75]>"
    )
