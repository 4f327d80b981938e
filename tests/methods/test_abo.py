"""All but One's goal: the request's anchor where there is one, and the target's own guidance reversed where not."""

from __future__ import annotations

import pytest
import torch

from efface.concept import Erasure
from efface.methods.abo import ABO
from efface.training.objectives.guidance import choose_goal
from tiny import tiny_model

QUICK = {"steps": 1, "batch": 2, "draw_steps": 2}


@pytest.mark.parametrize(("anchor", "goal", "asked"), [("dog", "alternative", "dog"), ("", "negative", "cat")])
def test_the_goal_follows_the_request(anchor: str, goal: str, asked: str) -> None:
    assert choose_goal("auto", anchor) == goal
    model = tiny_model()
    trainer = ABO(**QUICK).build_trainer(model, Erasure(("cat",), anchor=anchor))
    queries = trainer.terms[0].build_queries(trainer.context, trainer.make_step(0, trainer.update))
    assert queries is not None
    assert torch.equal(queries["eps_goal"].cond.tokens, model.encode([asked] * 2).tokens)


def test_an_anchor_changes_what_is_learned() -> None:
    edits = [ABO(**QUICK).fit(tiny_model(), Erasure(("cat",), anchor=anchor)) for anchor in ("dog", "")]
    assert any(not torch.equal(value, edits[1].values[name]) for name, value in edits[0].values.items())


def test_goals_that_the_request_cannot_serve_are_refused() -> None:
    with pytest.raises(ValueError, match="the goal 'alternative' needs one"):
        choose_goal("alternative", "")
    with pytest.raises(ValueError, match="the goal 'neutral' has no use for an anchor"):
        choose_goal("neutral", "dog")
