"""What single methods refuse before any work, beside what every method does."""

from __future__ import annotations

from typing import Any

import pytest

from efface import methods
from efface.concept import Erasure
from efface.methods.abo import ABO
from efface.methods.erasediff import EraseDiff
from efface.methods.salun import SalUn
from tiny_ddpm import tiny_ddpm


@pytest.mark.parametrize("goal", ["neutral", "negative"])
def test_abo_has_no_use_for_an_anchor_where_the_goal_is_another(goal: Any, eps_model, monkeypatch) -> None:
    monkeypatch.setattr(eps_model, "encode", lambda *_: pytest.fail("work began"))
    with pytest.raises(ValueError, match=f"the goal '{goal}' has no use for an anchor .'dog'.; leave it out"):
        ABO(goal=goal).fit(eps_model, Erasure(("cat",), anchor="dog"))
    with pytest.raises(ValueError, match="the goal 'alternative' needs one"):
        ABO(goal="alternative").fit(eps_model, Erasure(("cat",)))


@pytest.mark.parametrize("wrong", ["uniform", "uniform-noised"])
def test_erasediff_has_no_use_for_an_anchor_where_the_noise_is_uniform(wrong: Any, eps_model, monkeypatch) -> None:
    monkeypatch.setattr(eps_model, "encode", lambda *_: pytest.fail("work began"))
    with pytest.raises(ValueError, match=f"wrong noise '{wrong}' has no use for an anchor .'dog'.; leave it out"):
        EraseDiff(wrong=wrong).fit(eps_model, Erasure(("cat",), anchor="dog"))
    EraseDiff(wrong=wrong).check(Erasure(("cat",)), eps_model)


def test_abo_has_states_of_one_kind() -> None:
    with pytest.raises(ValueError, match="no states 'nonsense'; there are trajectories, pictures"):
        ABO(states="nonsense")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="states on trajectories do not use images='folder'; --states pictures does"):
        ABO(images="folder")


def test_update_and_balance_are_made_before_the_terms_which_may_read_folders(eps_model, monkeypatch) -> None:
    for kind, bad in ((SalUn, {"share": 2.0}), (EraseDiff, {"rate": "nonsense"})):
        monkeypatch.setattr(kind, "build_terms", lambda *_: pytest.fail("folders were read"))
        with pytest.raises(ValueError, match=r"a share of the weights|no rate"):
            kind(**bad).build_trainer(eps_model, Erasure(("cat",)))


def test_a_guide_of_two_classes_is_refused_where_a_picture_is_of_one() -> None:
    method, model = methods.get("negative")(), tiny_ddpm()
    assert method.fit(model, Erasure(("cat",))).meta["guide"]
    with pytest.raises(ValueError, match="names 2 classes"):
        method.check(Erasure(("cat", "dog")), model)
    with pytest.raises(ValueError, match="names 2 classes"):
        method.fit(model, Erasure(("cat", "dog")))


def test_sld_is_refused_where_a_prompt_is_the_concept_itself() -> None:
    with pytest.raises(ValueError, match="sd, sdxl"):
        methods.get("sld")().check(Erasure(("cat",)), tiny_ddpm())
