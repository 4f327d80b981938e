"""Surgical: All-but-One's objective with EAP's preservation, and with or without the unconditional score held."""

from __future__ import annotations

import pytest
import torch

from efface.concept import Erasure
from efface.methods.surgical import Surgical
from efface.training.preservation.unconditional import Unconditional
from tiny import tiny_model

QUICK = {"steps": 2, "batch": 2, "draw_steps": 2, "source": "frozen", "paths": 2, "centres": 4, "k_closest": 6}
TO_DOG = Erasure(("cat",), anchor="dog")


def test_it_moves_the_target_to_the_alternative_and_keeps_the_search_s_choice_and_the_unconditional_score() -> None:
    trainer = Surgical(**QUICK).build_trainer(tiny_model(), TO_DOG)
    model, step = trainer.context.model, trainer.make_step(0, trainer.update)
    asked = [term.build_queries(trainer.context, step) for term in trainer.terms]
    assert [term.role for term in trainer.terms] == ["erase", "keep", "keep"]
    guidance, adversarial, unconditional = [queries for queries in asked if queries is not None]
    assert torch.equal(guidance["eps_goal"].cond.tokens, model.encode(["dog"] * 2).tokens)
    assert not set(adversarial["student"].prompts) & {"cat", "cats", ""}
    assert list(unconditional["student"].prompts) == ["", ""]
    # One state for the target and for the empty prompt, as in All-but-One; another for what is preserved.
    assert unconditional["student"].states is guidance["eps_goal"].states
    assert adversarial["student"].states is not guidance["eps_goal"].states


def test_holding_the_unconditional_score_is_a_choice() -> None:
    held, free = (Surgical(**QUICK, lr=1e-3, hold=hold).fit(tiny_model(), TO_DOG) for hold in (True, False))
    assert any(not torch.equal(value, free.values[name]) for name, value in held.values.items())
    trainer = Surgical(**QUICK, hold=False).build_trainer(tiny_model(), TO_DOG)
    assert not any(isinstance(term, Unconditional) for term in trainer.terms)


def test_what_the_request_cannot_serve_is_refused() -> None:
    with pytest.raises(ValueError, match="the goal 'neutral' has no use for an anchor"):
        Surgical(**QUICK, goal="neutral").check(TO_DOG)
    with pytest.raises(ValueError, match="the goal 'alternative' needs one"):
        Surgical(**QUICK, goal="alternative").check(Erasure(("cat",)))
