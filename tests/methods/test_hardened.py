"""Hardened: ESD's objective under an attack in every update, and EAP's preservation."""

from __future__ import annotations

import pytest
import torch

from efface.concept import Erasure
from efface.methods.hardened import Hardened
from tiny import tiny_model

QUICK = {"steps": 2, "batch": 2, "draw_steps": 2, "source": "frozen", "paths": 2, "centres": 4, "k_closest": 6}
CAT = Erasure(("cat",))


def test_the_target_is_erased_behind_a_prefix_that_makes_it_likelier_and_the_search_s_choice_is_kept() -> None:
    trainer = Hardened(**QUICK, warm_up=0, attack_tokens=2, attack_steps=8).build_trainer(tiny_model(), CAT)
    step = trainer.make_step(0, trainer.update)
    assert [term.role for term in trainer.terms] == ["erase", "keep"]
    attacked, adversarial = [term.build_queries(trainer.context, step) for term in trainer.terms]
    assert attacked is not None and adversarial is not None
    prefix, states = attacked["student"].prefix, attacked["student"].states
    assert prefix is not None and prefix.shape[:2] == (2, 2)
    assert not set(adversarial["student"].prompts) & {"cat", "cats", ""}
    # The search's word is read without a prefix: the attack is on the target alone.
    assert adversarial["student"].prefix is None
    # With the prefix that was found, the model predicts more nearly what it does for the target than with random words.
    objective = trainer.terms[0]
    words = trainer.context.model.get_embedding_table().detach()
    others = words[torch.randint(len(words), (16, 2), generator=torch.Generator().manual_seed(1))]
    found = objective.compute_error(trainer.context, states, ["cat"] * 2, prefix).mean()
    random = [objective.compute_error(trainer.context, states, ["cat"] * 2, o.expand(2, -1, -1)).mean() for o in others]
    assert found < torch.stack(random).median()


def test_before_the_warm_up_ends_the_prompt_is_the_target_s_own() -> None:
    trainer = Hardened(**QUICK, warm_up=1).build_trainer(tiny_model(), CAT)
    asked = trainer.terms[0].build_queries(trainer.context, trainer.make_step(0, trainer.update))
    assert asked is not None and asked["student"].prefix is None


def test_an_attack_that_is_none_and_models_without_clip_s_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 token"):
        Hardened(**QUICK, attack_tokens=0).build_trainer(tiny_model(), CAT)
    with pytest.raises(ValueError, match="has no use for an anchor"):
        Hardened(**QUICK).check(Erasure(("cat",), anchor="dog"))
