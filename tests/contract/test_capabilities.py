"""What the list says of every method is what the method does, on every kind of model."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from efface import methods
from efface.concept import Erasure
from efface.game import Trained
from efface.models.base import Model
from tiny import tiny_model
from tiny_ddpm import tiny_ddpm
from tiny_sdxl import tiny_sdxl

MODELS = {"sd": tiny_model, "sdxl": tiny_sdxl, "ddpm": tiny_ddpm}
SHORT: dict[str, Any] = {"steps": 1, "batch": 1, "draw_steps": 2, "pictures": 2, "remain_words": 2, "looks": 1}
SHORT |= {"source": "frozen", "paths": 1, "label": "dog", "lr": 0.01, "start": 0.005, "warm_up": 0}
SHORT |= {"attack_steps": 1, "rounds": 1, "retain_batch": 1, "retain_template": "{}", "contexts": ("{}",)}


def quick(name: str, model: Model) -> Any:
    kind = methods.get(name)
    known = {field.name for field in dataclasses.fields(kind)} - getattr(kind(), "idle", frozenset())
    given = {key: value for key, value in SHORT.items() if key in known}
    # A model of classes has no cross-attention, which most methods train.
    whole = {"weights": "full"} if model.architecture == "ddpm" and "weights" in known else {}
    return kind(**{**given, **whole})


@pytest.fixture(params=methods.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_source_says_what_the_class_says(name: str) -> None:
    can, kind = methods.capabilities(name), methods.get(name)
    assert (can.kind, can.architectures, can.several) == (kind.kind, kind.architectures, kind.several)
    assert (can.kind == "trained") == issubclass(kind, Trained)
    if not kind.by_choice:
        assert can.anchor == ("needed" if kind.needs_anchor else "optional" if kind.uses_anchor else "no")
        assert can.keep == ("optional" if kind.uses_keep else "no")
        folders = [f.name for f in dataclasses.fields(kind) if f.name == "images" or f.name.endswith("_images")]
        assert can.images == ("optional" if folders else "no")


@pytest.mark.parametrize("architecture", MODELS)
def test_it_serves_the_models_it_says_and_refuses_the_others(name: str, architecture: str, monkeypatch: Any) -> None:
    model = MODELS[architecture]()
    assert model.architecture == architecture
    can = methods.capabilities(name)
    erasure = Erasure(("cat",), anchor="dog" if can.anchor == "needed" else "")
    method = quick(name, model)
    if architecture in can.architectures:
        edit = method.fit(model, erasure)
        assert edit.values or edit.meta.get("guide")
    else:
        for work in ("encode", "sample", "predict"):
            monkeypatch.setattr(model, work, lambda *_, **__: pytest.fail("work began"))
        with pytest.raises(ValueError, match=f"{type(method).__name__} does not work on .*; it serves .*sd"):
            method.fit(model, erasure)


def test_it_erases_several_concepts_or_refuses(name: str) -> None:
    model, can = tiny_model(), methods.capabilities(name)
    erasure = Erasure(("cat", "car"), anchor="dog" if can.anchor == "needed" else "")
    if can.several:
        assert quick(name, model).fit(model, erasure).meta["request"]["targets"] == ["cat", "car"]
    else:
        with pytest.raises(ValueError, match="one concept at a time"):
            quick(name, model).fit(model, erasure)


def test_both_spellings_of_a_name() -> None:
    assert "p-esd" in methods.names() and not any("_" in name for name in methods.names())
    assert methods.get("p_esd") is methods.get("p-esd")
    assert methods.describe("p_ac") == methods.describe("p-ac")
    assert methods.named("p_esd") == "p-esd"
    for table in ({"p-esd": {"templates": ["a {}"]}}, {"p_esd": {"templates": ["a {}"]}}):
        for spelled in ("p-esd", "p_esd"):
            assert methods.suggestion(spelled, table) == {"templates": ("a {}",)}
    assert methods.suggestion("esd", {"p-esd": {"steps": 3}}) == {}
    with pytest.raises(ValueError, match="no method 'p_esdd'; did you mean 'p-esd'"):
        methods.get("p_esdd")


def test_a_base_class_elsewhere_and_none_at_all(tmp_path: Any) -> None:
    from efface.methods import _capabilities

    file = tmp_path / "other.py"
    source = "from ..updates.mask import Pruning\n\nclass Other(Pruning):\n    several: ClassVar[bool] = False\n"
    file.write_text(source + "    forget_images: str\n\nclass Helper:\n    pass\n")
    can = _capabilities.read(file, "efface.methods")
    assert (can.kind, can.several, can.images, can.anchor) == ("trained", False, "needed", "no")
