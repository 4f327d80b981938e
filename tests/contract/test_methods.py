"""What every method owes, walked over the folder: a new one is tested unasked."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import efface
import efface.game.loop
from efface import methods
from efface.cli.erase import ready
from efface.concept import Erasure
from efface.game import Edit, Method
from efface.models.sd import StableDiffusion
from efface.select import select

SHORT = {"steps": 3, "batch": 2, "draw_steps": 3, "paths": 2, "lr": 1e-3, "warm_up": 0}
SHORT |= {"pictures": 4, "remain_words": 3, "looks": 1, "label": "car", "sparsity": 0.05}
SHORT |= {"attack_steps": 2, "retain_batch": 2, "retain_template": "a {}", "contexts": ("{}",)}
PROMPTS, SEEDS = ["a cat", "a dog"], [1, 2]


def short(name: str, **more: object) -> dict[str, object]:
    """Settings that finish at once, as far as the method has them."""
    # Compose refuses settings that its choices leave idle; as it comes, those of ESD.
    idle = getattr(methods.get(name)(), "idle", frozenset())
    known = {field.name for field in dataclasses.fields(methods.get(name))} - idle
    return {key: value for key, value in {**SHORT, **more}.items() if key in known}


def quick(name: str, **more: object) -> Method:
    return methods.get(name)(**short(name, **more))


def request(name: str) -> Erasure:
    return Erasure(("cat",), anchor="dog" if methods.get(name).uses_anchor else "")


def same(one: Edit, two: Edit) -> bool:
    equal = all(torch.equal(value, two.values[key]) for key, value in one.values.items() if key in two.values)
    return equal and one.values.keys() == two.values.keys() and one.meta.get("guide") == two.meta.get("guide")


@pytest.fixture(params=methods.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def fitted(name: str, eps_model: StableDiffusion) -> Edit:
    return quick(name).fit(eps_model, request(name))


def test_it_is_described_and_final(name):
    assert methods.describe(name).endswith(".")
    assert getattr(methods.get(name), "__final__", False)
    assert dataclasses.fields(methods.get(name))


def test_fit_leaves_the_model_bit_identical_and_is_reproducible(name, model):
    before = {key: (tensor, tensor.detach().clone()) for key, tensor in model.weights.items()}
    pictures = model.images(PROMPTS, SEEDS)
    one, two = (quick(name).fit(model, request(name)) for _ in range(2))
    assert all(model.weights[key] is tensor and torch.equal(tensor, copy) for key, (tensor, copy) in before.items())
    assert torch.equal(model.images(PROMPTS, SEEDS), pictures)
    assert same(one, two)
    assert one.meta == two.meta


def test_both_sources(name, model):
    if "source" not in short(name, source="frozen"):
        pytest.skip("it has no source")
    one, two = (quick(name, source=source).fit(model, request(name)) for source in ("student", "frozen"))
    assert not same(one, two)


def test_only_selected_weights_move_and_they_do(name, fitted, eps_model):
    base = eps_model.weights
    selected = select(base, getattr(quick(name), "weights", "full"))
    assert fitted.names or fitted.meta.get("guide")
    assert set(fitted.names) <= set(selected)
    with fitted.apply(eps_model):
        moved = eps_model.weights
        assert all(not torch.equal(moved[key], base[key]) for key in fitted.names if "to_v" in key)


def test_applying_and_leaving_are_exact(fitted, eps_model):
    before, base = eps_model.images(PROMPTS, SEEDS), eps_model.weights
    with fitted.apply(eps_model):
        weights = eps_model.weights
        assert all(torch.equal(weights[key], value) for key, value in fitted.values.items() if key in weights)
        assert {key for key, tensor in weights.items() if tensor is not base[key]} == set(fitted.names)
        edited = eps_model.images(PROMPTS, SEEDS)
    assert not torch.equal(edited, before)
    assert torch.equal(eps_model.images(PROMPTS, SEEDS), before)
    with fitted.apply(eps_model, strength=0.0):
        assert torch.equal(eps_model.images(PROMPTS, SEEDS), before)
    with pytest.raises(RuntimeError, match="on the way"), fitted.apply(eps_model):
        raise RuntimeError("on the way")
    assert torch.equal(eps_model.images(PROMPTS, SEEDS), before)


def test_saved_and_loaded_it_draws_the_same(fitted, eps_model, tmp_path):
    loaded = Edit.load(fitted.save(tmp_path / "edit.safetensors"))
    pictures = []
    for edit in (fitted, loaded):
        with edit.apply(eps_model):
            pictures.append(eps_model.images(PROMPTS, SEEDS))
    assert torch.equal(*pictures)
    assert loaded.meta == {**fitted.meta, "kind": "edit"}
    assert loaded.meta["request"] == {"targets": ["cat"], "anchor": fitted.meta["request"]["anchor"], "keep": []}
    assert {"efface", "torch", "diffusers", "transformers"} <= set(loaded.meta["versions"])


@pytest.mark.parametrize("source", ["student", "frozen"])
def test_killed_anywhere_it_resumes_as_if_nothing_had_been(name, source, eps_model, tmp_path, monkeypatch):
    if "steps" not in short(name):
        pytest.skip("it has no turns to be killed at")
    monkeypatch.setattr(efface.game.loop, "SAVE_EVERY", 1)
    method = quick(name, source=source, refresh=2)
    whole = method.fit(eps_model, request(name))
    file = tmp_path / "checkpoint"
    killed = 0

    def kill(*_: object, **__: object) -> None:
        nonlocal killed
        killed += 1
        raise KeyboardInterrupt

    while True:
        file_before = file.exists()
        try:
            resumed = method.fit(eps_model, request(name), progress=kill, checkpoint=file)
            break
        except KeyboardInterrupt:
            assert file.exists()
    assert killed > 1
    assert file_before
    assert not file.exists()
    assert same(whole, resumed)
    assert whole.meta == resumed.meta


def test_arguments_it_cannot_use_are_refused_before_work(name, eps_model, monkeypatch):
    monkeypatch.setattr(eps_model, "encode", lambda *_: pytest.fail("work began"))
    if not methods.get(name).uses_keep:
        with pytest.raises(ValueError, match="no use for concepts to keep"):
            quick(name).fit(eps_model, Erasure(("cat",), keep=("dog",)))
    if not methods.get(name).uses_anchor:
        with pytest.raises(ValueError, match="no use for an anchor"):
            quick(name).fit(eps_model, Erasure(("cat",), anchor="dog"))


def test_library_face(name, eps_model):
    edit = efface.erase(eps_model, request(name), method=name, **short(name))
    assert same(edit, quick(name).fit(eps_model, request(name)))
    with pytest.raises(ValueError, match="no target"):
        efface.erase(eps_model, [], method=name)
    hint = "did you mean 'steps'" if "steps" in short(name) else ""
    with pytest.raises(ValueError, match=f"{name} has no argument 'stepp'; {hint}"):
        efface.erase(eps_model, "cat", method=name, stepp=3)


def test_the_command_line_fits_as_the_library_does(name, eps_model, tmp_path):
    ours = ready(eps_model, request(name), quick(name)).fit(tmp_path / "edit.safetensors", None, lambda *_: None)
    theirs = quick(name).fit(eps_model, request(name))
    assert same(ours, theirs)
    assert {key: value for key, value in ours.meta.items() if key != "cost"} == theirs.meta


def test_unknown_method(eps_model):
    with pytest.raises(ValueError, match=r"no method 'eapp'; did you mean 'eap'\? there are .*esd"):
        efface.erase(eps_model, "cat", method="eapp")


def test_suggestions_come_from_the_model_and_yield_to_overrides(eps_model):
    eps_model.defaults = dataclasses.replace(eps_model.defaults, methods={"esd": {"steps": 7, "templates": ["a {}"]}})
    assert methods.suggested("esd", eps_model) == {"steps": 7, "templates": ("a {}",)}
    method = methods.configured("esd", eps_model, {"steps": 8})
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
        efface.erase(eps_model, "cat", method="esd", **short("esd", **bad))


@pytest.mark.filterwarnings("ignore:1 prompts exceed 8 tokens:UserWarning")  # all five names in one prompt
def test_five_targets_at_once(name, eps_model):
    anchor = "tiger" if methods.get(name).uses_anchor else ""
    edit = quick(name).fit(eps_model, Erasure(("cat", "dog", "car", "rose", "lion"), anchor=anchor))
    assert edit.meta["request"]["targets"] == ["cat", "dog", "car", "rose", "lion"]
    before = eps_model.images(PROMPTS, SEEDS)
    with edit.apply(eps_model):
        assert not torch.equal(eps_model.images(PROMPTS, SEEDS), before)
