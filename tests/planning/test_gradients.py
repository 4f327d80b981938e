"""Attacks by gradients: what they will take, said before, and as many rows at once as fit."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from attack_context import build_context, build_rows
from efface import attacks
from efface.api.attacking import require_gradient_memory
from efface.attacks.base import propose_within_budget
from efface.models.adapters.sd import StableDiffusion
from efface.planning.gradients import PREFIX, GradientPlan, plan_gradients
from efface.planning.plan import SPARE, DoesNotFit
from efface.planning.tracker import AllocationTracker
from tiny import tiny_model

SHORT = {"queries": 1, "steps": 2, "tokens": PREFIX}
pytestmark = pytest.mark.filterwarnings("ignore:.*exceeds? 8 tokens:UserWarning")  # the tiny model's room


@pytest.fixture
def model() -> StableDiffusion:
    return tiny_model()


def list_first_candidates(name: str, model: StableDiffusion) -> list[object]:
    attack = attacks.build_attack(name, overrides=SHORT)
    context = dataclasses.replace(build_context(model, None), steps=2)
    found = next(propose_within_budget(attack, context, build_rows("a cat", "a red cat", "two cats", "cat")))
    return [getattr(c.prompt, "embedding", c.prompt) for c in found if c is not None]


@pytest.mark.parametrize("name", ["unlearndiff", "soft-prompt", "p4d"])
def test_rows_some_at_once_find_what_all_at_once_find(name: str, model: StableDiffusion) -> None:
    whole = list_first_candidates(name, model)
    model.gradient_rows = 2
    for one, other in zip(whole, list_first_candidates(name, model), strict=True):
        if isinstance(one, torch.Tensor):
            assert isinstance(other, torch.Tensor) and torch.allclose(one, other, atol=1e-5)
        else:
            assert one == other


def test_fewer_rows_at_once_take_less_and_no_weight_asks_for_a_gradient(model: StableDiffusion) -> None:
    peaks, asked = {}, []
    plain = model.predict

    def watched(*args):
        asked.append(any(weight.requires_grad for weight in model.weights.values()))
        return plain(*args)

    model.predict = watched  # type: ignore[method-assign]
    for rows in (0, 1):
        model.gradient_rows = rows
        with AllocationTracker(model.weights.values()) as tracker:
            list_first_candidates("unlearndiff", model)
        peaks[rows] = tracker.peak
    assert peaks[1] < 0.5 * peaks[0]
    assert not any(asked) and all(weight.requires_grad for weight in model.weights.values())


def test_the_plan_is_near_what_a_gradient_takes(model: StableDiffusion) -> None:
    plan = plan_gradients(model, 4, None)
    with AllocationTracker(model.weights.values()) as tracker:
        list_first_candidates("unlearndiff", model)
    assert plan.at_once == 4 and plan.step(4) == pytest.approx(tracker.peak, rel=0.15)


def test_it_takes_as_many_rows_at_once_as_fit(model: StableDiffusion) -> None:
    whole = plan_gradients(model, 16, None)
    for fits in (16, 8, 4, 1):
        limit = round(SPARE * dataclasses.replace(whole, at_once=fits).need)
        plan = plan_gradients(model, 16, limit + 1)
        assert plan.at_once == fits and plan.need * SPARE <= limit + 1
        assert f"{fits} of 16 rows at once" in plan.format_table()
    with pytest.raises(DoesNotFit, match=r"there are .*\n(.*\n)*.*--dtype bf16 or fp16 and --offload take less"):
        plan_gradients(model, 16, whole.weights)


def test_a_campaign_plans_where_it_has_attacks_by_gradients(model: StableDiffusion) -> None:
    plans: list[GradientPlan] = []
    kinds = [attacks.build_attack(name) for name in ("seeds", "soft-prompt")]
    require_gradient_memory(model, kinds[:1], 1000, plans.append, lambda *_: None)
    assert not plans
    limit = round(SPARE * dataclasses.replace(plan_gradients(model, 16, None), at_once=4).need) + 1
    require_gradient_memory(model, kinds, limit, plans.append, lambda *_: None)
    assert [plan.at_once for plan in plans] == [4] and model.gradient_rows == 4
    require_gradient_memory(model, kinds, None, None, lambda *_: None)
    assert model.gradient_rows == 0
    with pytest.raises(DoesNotFit):
        require_gradient_memory(model, kinds, 1000, None, lambda *_: None)
