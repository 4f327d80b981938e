"""What every method owes on every kind of model that it serves: tiny ones of the real classes, and the embedded one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

import efface.training.trainer
from efface import methods
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.methods.base import Method
from efface.methods.closed_form import ClosedForm
from efface.models.base import Model
from efface.suites import world
from efface.suites.world import locate
from export_table import describe, read_page
from tiny_fits import KINDS, build_quick, is_same, list_served
from tiny_fits import build_request as asked


@dataclass(frozen=True)
class Opened:
    """A model that all methods share, for each leaves it as it was."""

    model: Model
    weights: dict[str, Tensor]
    copies: dict[str, Tensor]
    pictures: Tensor

    def is_untouched(self) -> bool:
        """The same tensors as at first, bit for bit."""
        now = self.model.weights
        kept = all(now[key] is tensor and torch.equal(tensor, self.copies[key]) for key, tensor in self.weights.items())
        return kept and now.keys() == self.weights.keys()


@dataclass(frozen=True)
class Done:
    """What a method left, and of which model."""

    kind: str
    name: str
    method: Method
    base: Opened
    edit: Edit


def draw_edited(model: Model, edit: Edit | None = None, strength: float = 1.0) -> Tensor:
    if edit is None:
        return model.images(["a cat", "a dog"], [1, 2], steps=2)
    with edit.apply(model, strength=strength):
        return draw_edited(model)


@cache
def open_kind(kind: str) -> Opened:
    model = KINDS[kind]()
    weights = dict(model.weights)
    return Opened(model, weights, {key: tensor.detach().clone() for key, tensor in weights.items()}, draw_edited(model))


PAIRS = [(kind, name) for kind in KINDS for name in list_served(kind)]
"""Every kind of model, with each method that serves it."""
EXPORTS = read_page()


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def done(request: pytest.FixtureRequest) -> Done:
    return fit_kind(*request.param)


@cache
def fit_kind(kind: str, name: str) -> Done:
    base = open_kind(kind)
    method = build_quick(name, base.model, **({"steps": 1, "batch": 1} if kind == "glyphs" else {}))
    return Done(kind, name, method, base, method.fit(base.model, asked(name)))


def test_fitting_leaves_the_model_bit_identical(done: Done) -> None:
    assert done.edit.names or done.edit.meta.get("guide")
    assert done.base.is_untouched()


@pytest.mark.parametrize("done", [pair for pair in PAIRS if pair[0] != "glyphs"], ids="-".join, indirect=True)
def test_it_is_exported_as_the_page_says(done: Done) -> None:
    assert describe(done.base.model, done.edit) == EXPORTS[done.name, done.kind]


# On the embedded model a fit is a single step, which leaves nothing to resume.
@pytest.mark.parametrize("done", [pair for pair in PAIRS if pair[0] != "glyphs"], ids="-".join, indirect=True)
def test_killed_it_resumes_as_if_nothing_had_been(done: Done, tmp_path, monkeypatch) -> None:
    """And so it is reproducible, as are those without turns to be killed at."""
    monkeypatch.setattr(efface.training.trainer, "SAVE_EVERY", 1)
    file = tmp_path / "checkpoint"

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        done.method.fit(done.base.model, asked(done.name), progress=kill, checkpoint=file)
    assert file.exists() == hasattr(done.method, "steps")
    assert done.base.is_untouched()
    again = done.method.fit(done.base.model, asked(done.name), checkpoint=file)
    assert not file.exists()
    assert is_same(again, done.edit)
    assert again.meta == done.edit.meta


def test_strength_0_and_1_and_leaving_are_exact(done: Done) -> None:
    model, edit, base = done.base.model, done.edit, done.base
    with edit.apply(model):
        weights = model.weights
        assert all(torch.equal(weights[key], value) for key, value in edit.values.items() if key in weights)
        assert {key for key, tensor in weights.items() if tensor is not base.weights[key]} == set(edit.names)
        assert not torch.equal(draw_edited(model), base.pictures)
    assert torch.equal(draw_edited(model, edit, strength=0.0), base.pictures)
    with pytest.raises(RuntimeError, match="on the way"), edit.apply(model):
        raise RuntimeError("on the way")
    assert base.is_untouched()
    assert torch.equal(draw_edited(model), base.pictures)


def test_saved_and_loaded_it_draws_the_same(done: Done, tmp_path) -> None:
    loaded = Edit.load(done.edit.save(tmp_path / "edit.safetensors"))
    assert is_same(loaded, done.edit)
    assert torch.equal(draw_edited(done.base.model, loaded), draw_edited(done.base.model, done.edit))
    assert loaded.meta == {**done.edit.meta, "kind": "edit"}
    assert loaded.meta["request"] == {"targets": ["cat"], "anchor": asked(done.name).anchor, "keep": []}
    assert {"efface", "torch", "diffusers", "transformers"} <= set(loaded.meta["versions"])


@pytest.mark.skipif("glyphs" not in KINDS, reason="glyphs is not bundled here")
@pytest.mark.parametrize("name", [name for name in methods.list_names() if issubclass(methods.get(name), ClosedForm)])
def test_closed_forms_take_a_hundred_words_of_the_embedded_model(name: str) -> None:
    """Names of its things and what else they are called; a cat is among them."""
    base = open_kind("glyphs")
    things = world.load(locate("glyphs")).things
    words = dict.fromkeys(word for thing in things for word in (thing.name, *thing.synonyms))
    edit = build_quick(name).fit(base.model, Erasure(tuple(words)[:100], anchor="thing"))
    assert len(edit.meta["request"]["targets"]) == 100
    assert all(value.isfinite().all() for value in edit.values.values())
    assert not torch.equal(draw_edited(base.model, edit), base.pictures)
    assert base.is_untouched()
