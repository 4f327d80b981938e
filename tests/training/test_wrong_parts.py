"""A part of a training that is written wrongly is refused by a line that names its class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from efface.concept import Erasure
from efface.methods.base import TrajectoryMethod
from efface.methods.states import build_target_trajectories
from efface.training.balance.sum import Sum
from efface.training.interfaces import Query, Term
from efface.training.updates.dense import Dense
from trainer_fixtures import QUICK


class Pull(Term):
    """Pulls the student's prediction to the teacher's for the empty prompt, or does something wrong."""

    role = "erase"

    def __init__(self, source: Any, wrong: str) -> None:
        self.source, self.wrong = source, wrong
        if wrong == "role of a term":
            self.role = "eraze"  # type: ignore[assignment]

    def build_queries(self, context: Any, step: Any) -> Any:
        if self.wrong == "no queries":
            return None
        prompts = context.list_target_prompts(step)
        cond = context.model.encode(prompts)
        states = self.source.sample_states(context, step, prompts, cond)
        student = Query(states, cond, "student", prompts=prompts)
        if self.wrong == "role of a query":
            student = replace(student, role="studnet")  # type: ignore[arg-type]
        return [student] if self.wrong == "list of queries" else {"student": student}

    def compute_loss(self, context: Any, queries: Any, predictions: Any) -> Any:
        errors = predictions["student"].square()
        values = {"no loss": None, "number": 1.0, "loss of each row": errors.flatten(1).mean(1)}
        values |= {"no gradient": errors.detach().mean()}
        return values.get(self.wrong, errors.mean())


@dataclass(frozen=True, kw_only=True)
class Halfway(TrajectoryMethod):
    """Moves the prediction halfway."""

    wrong: str = ""

    def build_terms(self, model: Any, erasure: Any) -> Any:
        term = Pull(build_target_trajectories(self, erasure), self.wrong)
        return {"no terms": (), "terms are None": None, "no term": (term, 3)}.get(self.wrong, (term,))

    def build_update(self) -> Any:
        return None if self.wrong == "no update" else Dense(self.weights, self.lr)

    def build_balance(self) -> Any:
        return Sum if self.wrong == "class of a balance" else Sum()


AT_ONCE = {
    "no terms": r"^Halfway.build_terms returned \(\); it has to return a tuple of terms$",
    "terms are None": "^Halfway.build_terms returned None; it has to return a tuple of terms$",
    "no term": "^Halfway.build_terms returned 3 among its terms",
    "role of a term": "^Pull.role is 'eraze'; did you mean 'erase'",
    "no update": "^Halfway.build_update returned None; it has to return an object of a subclass of Update",
    "class of a balance": "^Halfway.build_balance returned .*; it has to return an object of a subclass of Balance",
}
IN_A_STEP = {
    "no queries": r"^step 1 \(Dense\) has no loss: Pull.build_queries returned None; at least one has to return",
    "role of a query": "^Pull.build_queries: the role of the query 'student' is 'studnet'; did you mean 'student'",
    "list of queries": "^Pull.build_queries returned a list; it has to return a dict of Query by name, or None",
    "no loss": "^Pull.compute_loss returned None; it has to return a scalar tensor",
    "number": "^Pull.compute_loss returned 1.0; it has to return a scalar tensor",
    "loss of each row": r"^Pull.compute_loss returned a tensor of shape \[2\]; it has to return a scalar tensor",
    "no gradient": "^Pull.compute_loss returned a tensor without a gradient; .* the role 'student'",
}


@pytest.mark.parametrize(("wrong", "message"), AT_ONCE.items(), ids=AT_ONCE)
def test_it_is_refused_before_anything_is_drawn(
    wrong: str, message: str, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(model), "predict", lambda *_: pytest.fail("something was drawn"))
    with pytest.raises(ValueError, match=message):
        Halfway(**QUICK, wrong=wrong).fit(model, Erasure(("cat",)))


@pytest.mark.parametrize(("wrong", "message"), IN_A_STEP.items(), ids=IN_A_STEP)
def test_it_is_refused_in_the_first_step(wrong: str, message: str, model: Any) -> None:
    with pytest.raises(ValueError, match=message):
        Halfway(**QUICK, wrong=wrong).fit(model, Erasure(("cat",)))


def test_the_same_method_without_the_fault_trains(model: Any) -> None:
    edit = Halfway(**QUICK).fit(model, Erasure(("cat",)))
    assert all(torch.isfinite(values).all() for values in edit.values.values())
    assert set(edit.meta["origin"]) == {__name__}
