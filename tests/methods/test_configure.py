"""A method by its name, class or instance: what the model suggests, what is given, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from efface.methods.ac import AC
from efface.methods.configure import build_method, suggest_for_bundled, suggest_settings
from efface.methods.eap import EAP
from efface.methods.esd import ESD
from efface.methods.gem import GEM
from efface.methods.uce import UCE
from efface.models.loading import list_bundled
from tiny_flux import tiny_flux
from tiny_sd3 import tiny_sd3


def test_a_flow_suggests_its_space_to_the_methods_that_leave_it_to_noise(eps_model: Any) -> None:
    assert suggest_settings("esd", tiny_sd3()) == {"space": "flow"}
    assert suggest_settings("eap", tiny_sd3()) == {}  # which measures errors as x0 on every model
    assert suggest_settings("uce", tiny_sd3()) == {}  # which has no such setting
    assert suggest_settings("esd", eps_model) == {}
    assert suggest_settings("uce", tiny_flux(dev=False)) == {}
    assert suggest_settings("eap", tiny_flux(dev=False)) == {"guidance": 1.0, "draw_steps": 4}


def test_a_model_s_own_table_goes_before_its_architecture_and_what_is_given_before_both() -> None:
    model = tiny_sd3()
    table = {"esd": {"space": "x0", "eta": 2.0, "templates": ["a {}"]}, "gem": {"eta": 9.0}}
    model.defaults = dataclasses.replace(model.defaults, methods=table)
    assert suggest_settings("esd", model) == {"space": "x0", "eta": 2.0, "templates": ("a {}",)}
    assert build_method("esd", model, {"eta": 3.0}) == ESD(space="x0", eta=3.0, templates=("a {}",))
    assert build_method(ESD, model, {}) == ESD(space="x0", eta=2.0, templates=("a {}",))
    assert build_method(EAP, model, {}) == EAP()


def test_an_instance_has_its_own_arguments_and_takes_no_suggestion() -> None:
    model = tiny_sd3()
    assert build_method(ESD(eta=2.0), model, {}) == ESD(eta=2.0)
    assert build_method(ESD(eta=2.0), model, {"steps": 5}) == ESD(eta=2.0, steps=5)


@pytest.mark.parametrize(("wrong", "kind"), [(3, "int"), (int, "type"), (None, "NoneType")])
def test_what_is_no_method_is_a_mistake_of_type(wrong: Any, kind: str, eps_model: Any) -> None:
    with pytest.raises(TypeError, match=f"a class or an instance of Method; got .*, a {kind}$"):
        build_method(wrong, eps_model, {})


def test_the_first_of_several_unknown_arguments_is_named_with_what_there_is(eps_model: Any) -> None:
    for method, name in ((ESD(), "esd"), (ESD, "esd"), ("esd", "esd")):
        with pytest.raises(ValueError, match=f"^{name} has no argument 'stepp'; did you mean 'steps'"):
            build_method(method, eps_model, {"zzzz": 1, "stepp": 2, "eta": 1.0})
    with pytest.raises(ValueError, match=r"uce has no argument 'zzzzzz'.*it has .*lamb.*templates"):
        build_method("uce", eps_model, {"zzzzzz": 1})


@pytest.mark.parametrize(("method", "setting"), [("esd", "steps"), ("esd", "eta"), (UCE(), "lamb"), (GEM, "first")])
def test_a_text_is_refused_where_a_number_is_taken(method: Any, setting: str, eps_model: Any) -> None:
    with pytest.raises(ValueError, match=f"{setting} is a number, got '7'"):
        build_method(method, eps_model, {setting: "7"})
    assert build_method("esd", eps_model, {"weights": "7"}).weights == "7"  # type: ignore[attr-defined]


def test_what_a_bundled_model_suggests_is_found_by_its_name_alone() -> None:
    assert suggest_for_bundled("esd", "") == {}
    assert suggest_for_bundled("esd", "no-such-model") == {}
    assert suggest_for_bundled("esd", "../glyphs") == {}
    for name in list_bundled():
        assert any(suggest_for_bundled(method, name) for method in ("esd", "uce", "eap"))


def test_a_distilled_model_is_drawn_without_guidance() -> None:
    assert build_method("ac", tiny_flux(dev=False), {}) == AC(space="flow", guidance=1.0, draw_steps=4)
