"""What every method owes, walked over the folder: a new one is tested unasked."""

from __future__ import annotations

import dataclasses
from functools import cache
from itertools import combinations
from typing import Any

import pytest
import torch

import efface
import efface.training.trainer
import tiny_fits
from efface import methods
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.methods.base import Method
from efface.training.subsets import select
from tiny import tiny_model
from tiny_fits import build_request, is_same

PROMPTS, SEEDS = ["a cat", "a dog"], [1, 2]
SHORT = {"steps": 3, "source": "student"}


def shorten_settings(name: str, **more: Any) -> dict[str, Any]:
    return tiny_fits.shorten_settings(name, **{**SHORT, **more})


def build_quick(name: str, **more: Any) -> Method:
    return tiny_fits.build_quick(name, **{**SHORT, **more})


SOURCES = {
    "student": {"source": "student", "refresh": 0},
    "refreshed": {"source": "student", "refresh": 2},
    "frozen": {"source": "frozen", "refresh": 2},
}


def has_source(name: str, source: str) -> bool:
    """Whether a method has such a source."""
    known = shorten_settings(name, refresh=2)
    return "source" in known and (source != "refreshed" or "refresh" in known)


@cache
def fit(name: str, source: str = "student") -> Edit:
    """What a method leaves of the model that `eps_model` is."""
    return build_quick(name, **SOURCES[source]).fit(tiny_model(), build_request(name))


@pytest.fixture(params=methods.list_names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_it_is_described_and_final(name):
    assert methods.describe(name).endswith(".")
    assert getattr(methods.get(name), "__final__", False)
    assert dataclasses.fields(methods.get(name))


@pytest.mark.parametrize("name", [name for name in methods.list_names() if "source" in shorten_settings(name)])
def test_all_sources(name):
    found = {source: fit(name, source) for source in SOURCES if has_source(name, source)}
    alike = {(one, other) for one, other in combinations(found, 2) if is_same(found[one], found[other])}
    # AdvUnlearn draws by a U-Net that stays the base's, and a mask prunes nothing in so few steps.
    assert alike <= ({("refreshed", "frozen")} if name in ("advunlearn", "p-ac", "p-esd") else set())


def test_only_selected_weights_move_and_they_do(name, eps_model):
    base, fitted = eps_model.weights, fit(name)
    selected = select(base, getattr(build_quick(name), "weights", "full"))
    assert fitted.names or fitted.meta.get("guide")
    assert build_quick(name).leaves_weights() == bool(fitted.meta.get("guide"))
    assert set(fitted.names) <= set(selected)
    with fitted.apply(eps_model):
        moved = eps_model.weights
        assert all(not torch.equal(moved[key], base[key]) for key in fitted.names if "to_v" in key)


def list_resumable() -> list[tuple[str, str]]:
    """Every method that trains in steps, with each of its sources; with the first where it has none."""
    stepping = [name for name in methods.list_names() if "steps" in shorten_settings(name)]
    return [
        (name, source) for name in stepping for source in SOURCES if source == "student" or has_source(name, source)
    ]


@pytest.mark.parametrize(("name", "source"), list_resumable())
def test_killed_anywhere_it_resumes_as_if_nothing_had_been(name, source, eps_model, tmp_path, monkeypatch):
    monkeypatch.setattr(efface.training.trainer, "SAVE_EVERY", 1)
    method = build_quick(name, **SOURCES[source])
    whole = fit(name, source)
    file = tmp_path / "checkpoint"
    killed = 0

    def kill(*_: object, **__: object) -> None:
        nonlocal killed
        killed += 1
        raise KeyboardInterrupt

    while True:
        file_before = file.exists()
        try:
            resumed = method.fit(eps_model, build_request(name), progress=kill, checkpoint=file)
            break
        except KeyboardInterrupt:
            assert file.exists()
    assert killed > 1
    assert file_before
    assert not file.exists()
    assert is_same(whole, resumed)
    assert whole.meta == resumed.meta


def test_arguments_it_cannot_use_are_refused_before_work(name, eps_model, monkeypatch):
    monkeypatch.setattr(eps_model, "encode", lambda *_: pytest.fail("work began"))
    if not methods.get(name).uses_keep:
        with pytest.raises(ValueError, match="no use for concepts to keep"):
            build_quick(name).fit(eps_model, Erasure(("cat",), keep=("dog",)))
    if not methods.get(name).uses_anchor:
        with pytest.raises(ValueError, match="no use for an anchor"):
            build_quick(name).fit(eps_model, Erasure(("cat",), anchor="dog"))


def test_library_face(name, eps_model):
    edit = efface.erase(eps_model, build_request(name), method=name, **shorten_settings(name))
    assert is_same(edit, fit(name))
    with pytest.raises(ValueError, match="no target"):
        efface.erase(eps_model, [], method=name)
    hint = "did you mean 'steps'" if "steps" in shorten_settings(name) else ""
    with pytest.raises(ValueError, match=f"{name} has no argument 'stepp'; {hint}"):
        efface.erase(eps_model, "cat", method=name, stepp=3)


def test_a_plan_beforehand_leaves_the_edit_as_it_is(name, eps_model):
    """`efface.erase` plans the memory of a training, and takes a method's instance; `fit` by itself plans nothing."""
    plans: list[object] = []
    ours, theirs = efface.erase(eps_model, build_request(name), build_quick(name), on_plan=plans.append), fit(name)
    assert is_same(ours, theirs)
    assert {key: value for key, value in ours.meta.items() if key != "cost"} == theirs.meta
    assert len(plans) == (methods.get(name).kind == "trained")


def test_unknown_method(eps_model):
    with pytest.raises(ValueError, match="no method 'eapp'; did you mean 'eap'"):
        efface.erase(eps_model, "cat", method="eapp")


def test_suggestions_come_from_the_model_and_yield_to_overrides(eps_model):
    eps_model.defaults = dataclasses.replace(eps_model.defaults, methods={"esd": {"steps": 7, "templates": ["a {}"]}})
    assert methods.suggest_settings("esd", eps_model) == {"steps": 7, "templates": ("a {}",)}
    method = methods.build_method("esd", eps_model, {"steps": 8})
    assert (method.steps, method.templates) == (8, ("a {}",))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"templates": ("a",)}, "a template holds the concept"),
        ({"templates": ()}, "a template holds the concept"),
        ({"weights": "nonsense"}, "'nonsense' selects no weight; subsets that do: xattn"),
        ({"lr": 0.0}, "learning rate must be positive"),
        ({"micro_batch": -1}, "micro_batch must be at least 0, got -1"),
        ({"refresh": -1}, "refresh must be at least 0, got -1"),
        ({"source": "nowhere"}, "no source 'nowhere'; there are student, frozen"),
    ],
)
def test_bad_settings(eps_model, bad, message):
    with pytest.raises(ValueError, match=message):
        efface.erase(eps_model, "cat", method="esd", **shorten_settings("esd", **bad))


@pytest.mark.filterwarnings("ignore:1 prompt exceeds 8 tokens:UserWarning")  # all five names in one prompt
def test_five_targets_at_once(name, eps_model):
    anchor = "tiger" if methods.get(name).uses_anchor else ""
    edit = build_quick(name, steps=1).fit(eps_model, Erasure(("cat", "dog", "car", "rose", "lion"), anchor=anchor))
    assert edit.meta["request"]["targets"] == ["cat", "dog", "car", "rose", "lion"]
    before = eps_model.images(PROMPTS, SEEDS)
    with edit.apply(eps_model):
        assert not torch.equal(eps_model.images(PROMPTS, SEEDS), before)
