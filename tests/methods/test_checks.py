"""What a method refuses of a request or a model, by what it says of itself, before any work."""

from __future__ import annotations

from typing import Any

import pytest

from efface import methods
from efface.concept import Erasure
from efface.methods.ac import AC
from efface.methods.base import Method
from efface.methods.esd import ESD
from efface.methods.gem import GEM
from efface.methods.spm import SPM
from efface.methods.uce import UCE
from tiny_flux import tiny_flux
from tiny_pixart import tiny_pixart
from tiny_sd3 import tiny_sd3

CAT, BOTH = Erasure(("cat",)), Erasure(("cat", "dog"))


def test_a_method_of_one_concept_refuses_two(monkeypatch: pytest.MonkeyPatch) -> None:
    UCE().check(BOTH)
    monkeypatch.setattr(UCE, "several", False)
    UCE().check(CAT)
    with pytest.raises(ValueError, match="UCE erases one concept at a time, got cat, dog; make one Edit for each"):
        UCE().check(BOTH)


def test_a_model_that_the_method_does_not_serve_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"SPM does not work on .*, because its gate and its anchoring words compare"):
        SPM().check(CAT, tiny_sd3())
    with pytest.raises(ValueError, match=r"of the kind pixart, because its attack .*; it serves sd, sdxl, sd3, and"):
        methods.get("hardened")().check(CAT, tiny_pixart())


@pytest.mark.parametrize("name", ["uce", "mace", "esd", "gem", "negative"])
def test_dense_changes_of_a_quantised_model_are_refused(name: str, eps_model: Any) -> None:
    """Closed forms and those in stages at once, trainings when their update is known; low rank and guides serve."""
    method: Method = methods.get(name)()
    method.check(CAT, eps_model)
    eps_model.quantised = 4
    if name in ("uce", "mace"):
        with pytest.raises(ValueError, match="makes new values of weights, and a base in 4 bits holds its own rounded"):
            method.check(CAT, eps_model)
        return
    method.check(CAT, eps_model)
    if name == "esd":
        with pytest.raises(ValueError, match="ESD makes new values of weights, and a base in 4 bits"):
            method.build(eps_model, CAT)
    else:
        method.build(eps_model, CAT)


def test_a_training_without_a_check_of_its_own_is_checked_when_it_is_built(eps_model: Any) -> None:
    with pytest.raises(ValueError, match="ESD has no use for an anchor"):
        ESD().build_trainer(eps_model, Erasure(("cat",), anchor="dog"))


def test_a_training_that_was_built_is_not_built_again(eps_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Built:
        def train(self, *given: Any) -> Any:
            return given

    built: Any = Built()
    monkeypatch.setattr(ESD, "build_trainer", lambda *_: pytest.fail("it was built again"))
    assert ESD().train(eps_model, CAT, built, None, "checkpoint") == (None, "checkpoint")
    monkeypatch.setattr(ESD, "build_trainer", lambda *_: built)
    assert ESD().train(eps_model, CAT, None, None, "checkpoint") == (None, "checkpoint")


def test_an_estimate_is_given_before_the_work_and_can_end_it(eps_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UCE, "train", lambda *_: pytest.fail("work began"))

    def refuse(built: Any) -> None:
        raise ZeroDivisionError(repr(built))

    with pytest.raises(ZeroDivisionError, match=r"^None$"):
        UCE().fit(eps_model, CAT, estimate=refuse)


def test_a_goal_that_the_request_cannot_serve_is_refused_with_the_request(eps_model: Any) -> None:
    for name in ("abo", "surgical"):
        for goal, anchor in (("neutral", "dog"), ("alternative", "")):
            with pytest.raises(ValueError, match=f"the goal '{goal}'"):
                methods.get(name)(goal=goal).check(Erasure(("cat",), anchor=anchor), eps_model)


def test_spms_gate_weighs_the_denoiser_alone_and_without_it_any_weight_may_have_an_adapter(eps_model: Any) -> None:
    SPM(gate=False, weights=r"text_encoder\..*").check(CAT, eps_model)
    SPM(weights=r"text_encoder\..*").check(CAT)
    with pytest.raises(ValueError, match="the gate weighs layers of the denoiser, 'text_encoder"):
        SPM(weights=r"text_encoder\..*").check(CAT, eps_model)


def test_gem_needs_an_unconditional_prediction_where_there_is_no_anchor() -> None:
    anchored = Erasure(("cat",), anchor="dog")
    assert GEM().relies_on_uncond(CAT) and not GEM().relies_on_uncond(anchored)
    distilled = tiny_flux(dev=False)
    GEM(guidance=1.0).check(anchored, distilled)
    with pytest.raises(ValueError, match="GEM moves a prediction relative to the unconditional one"):
        GEM(guidance=1.0).check(CAT, distilled)
    GEM().check(CAT, tiny_flux())


def test_a_distilled_model_is_not_drawn_with_guidance() -> None:
    anchored, distilled = Erasure(("cat",), anchor="dog"), tiny_flux(dev=False)
    AC(guidance=1.0).check(anchored, distilled)
    AC(guidance=3.0).check(anchored, tiny_flux())
    UCE().check(anchored, distilled)  # which has no such setting
    for guidance in (0.5, 3.0):
        with pytest.raises(ValueError, match=rf"draws without guidance.*give guidance 1 \(AC has it at {guidance:g}\)"):
            AC(guidance=guidance).check(anchored, distilled)


def test_only_guides_and_spms_gate_leave_the_weights_alone() -> None:
    guides = {name for name in methods.list_names() if methods.get(name)().leaves_weights()}
    assert guides == {"negative", "safree", "sld", "spm"}
    assert not SPM(gate=False).leaves_weights()


@pytest.mark.parametrize("name", methods.list_names())
def test_a_method_with_checks_of_its_own_makes_those_of_all_too(name: str, eps_model: Any) -> None:
    method: Method = methods.get(name)()
    anchor = "dog" if method.uses_anchor else ""
    method.check(Erasure(("cat",), anchor=anchor), eps_model)
    with pytest.raises(ValueError, match="'cat, dog' would be one phrase"):
        method.check(Erasure(("cat, dog",), anchor=anchor), eps_model)


def test_a_comma_separates_concepts_unless_the_model_names_them_so(eps_model: Any) -> None:
    for wrong in (Erasure(("cat, dog",)), Erasure(("cat",), keep=("rose, lion",))):
        with pytest.raises(ValueError, match="would be one phrase, not 2 concepts"):
            UCE().check(wrong, eps_model)
    both = Erasure(("cat, dog",), keep=("rose, lion",))
    eps_model.classes = ("cat, dog", "rose, lion")
    UCE().check(both, eps_model)
    eps_model.classes, eps_model.own_words = (), ("cat, dog", "rose, lion")
    UCE().check(both, eps_model)
