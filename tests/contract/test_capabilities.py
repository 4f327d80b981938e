"""What the list says of every method is what the method does, on every kind of model."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from efface import methods
from efface.catalog import METHODS
from efface.concept import Erasure
from efface.methods.base import Trained
from efface.methods.capabilities import describe_needs, read_capabilities
from efface.models.architectures import expand
from tiny import tiny_model
from tiny_fits import FLOWS, KINDS, build_quick, build_request, list_served


@pytest.fixture(params=methods.list_names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_source_says_what_the_class_says(name: str) -> None:
    can, kind = methods.find_capabilities(name), methods.get(name)
    assert (can.kind, can.architectures, can.several) == (kind.kind, expand(kind.architectures), kind.several)
    assert (can.kind == "trained") == issubclass(kind, Trained)
    assert can.uncond == ("by choice" if kind.by_choice else "needed" if kind.needs_uncond else "no")
    if not kind.by_choice:
        assert can.anchor == ("needed" if kind.needs_anchor else "optional" if kind.uses_anchor else "no")
        assert can.keep == ("optional" if kind.uses_keep else "no")
        folders = [f.name for f in dataclasses.fields(kind) if f.name == "images" or f.name.endswith("_images")]
        assert can.images == ("optional" if folders else "no")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        # A flow distilled to a few steps has no unconditional prediction, and FLUX reads its guidance as a number.
        ("gem", {"sd": "yes", "sd3": "yes", "flux": "yes", "z-image": "yes", "flux2": "yes"}),
        ("esd", {"sd": "yes", "sd3": "yes", "flux": "guidance", "z-image": "guidance", "flux2": "guidance"}),
        ("negative", {"sd": "yes", "sd3": "yes", "flux": "two", "z-image": "guidance", "flux2": "two"}),
        ("spm", {"sd": "yes", "sd3": "no", "flux": "no", "z-image": "no", "flux2": "no"}),
        ("hardened", {"sd": "yes", "sd3": "yes", "flux": "no", "z-image": "no", "flux2": "no"}),
    ],
)
def test_what_serving_an_architecture_takes(name: str, wanted: dict[str, str]) -> None:
    found = describe_needs(methods.find_capabilities(name))
    assert {kind: found[kind] for kind in wanted} == wanted


REFUSED = [
    (name, kind)
    for name in methods.list_names()
    for kind in ("sd", "sdxl", "pixart", "ddpm", *FLOWS)
    if name not in list_served(kind)
]


@pytest.mark.parametrize(("name", "kind"), REFUSED)
def test_it_refuses_the_models_that_it_does_not_serve(name: str, kind: str, monkeypatch: Any) -> None:
    """Before any work; on the others it is fitted in `test_kinds`."""
    model, erasure = {**KINDS, **FLOWS}[kind](), build_request(name)
    assert model.architecture == kind
    for work in ("encode", "sample", "predict"):
        monkeypatch.setattr(model, work, lambda *_, **__: pytest.fail("work began"))
    with pytest.raises(ValueError, match=f"{methods.get(name).__name__} does not work on .*; it serves .*sd"):
        build_quick(name, model).fit(model, erasure)


def test_it_erases_several_concepts_or_refuses(name: str) -> None:
    model, can = tiny_model(), methods.find_capabilities(name)
    erasure = Erasure(("cat", "car"), anchor="dog" if can.anchor == "needed" else "")
    if can.several:
        assert build_quick(name, model, steps=1).fit(model, erasure).meta["request"]["targets"] == ["cat", "car"]
    else:
        with pytest.raises(ValueError, match="one concept at a time"):
            build_quick(name, model).fit(model, erasure)


def test_both_spellings_of_a_name() -> None:
    assert "p-esd" in methods.list_names() and not any("_" in name for name in methods.list_names())
    assert methods.get("p_esd") is methods.get("p-esd")
    assert methods.describe("p_ac") == methods.describe("p-ac")
    assert methods.find_name("p_esd") == "p-esd"
    for table in ({"p-esd": {"templates": ["a {}"]}}, {"p_esd": {"templates": ["a {}"]}}):
        for spelled in ("p-esd", "p_esd"):
            assert methods.find_suggestion(spelled, table) == {"templates": ("a {}",)}
    assert methods.find_suggestion("esd", {"p-esd": {"steps": 3}}) == {}
    with pytest.raises(ValueError, match="no method 'p_esdd'; did you mean 'p-esd'"):
        methods.get("p_esdd")


def test_a_base_class_elsewhere_and_none_at_all(tmp_path: Any) -> None:
    file = tmp_path / "other.py"
    source = "from .pruning import Pruning\n\n@final\nclass Other(Pruning):\n    several: ClassVar[bool] = False\n"
    file.write_text(source + "    forget_images: str\n\nclass Helper:\n    pass\n")
    own = METHODS.find_member(file, "efface.methods.other")
    assert own is not None and own.name == "Other"
    can = read_capabilities(own)
    assert (can.kind, can.several, can.images, can.anchor) == ("trained", False, "needed", "no")
