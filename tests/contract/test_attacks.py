"""What every attack owes, walked over the folder: a new one is tested unasked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args

import pytest
import torch

from attack_context import build_context, build_rows, edit_of
from efface import attacks
from efface.attacks.base import Attack, Candidate, Threat, propose_within_budget
from efface.concept import Prompt
from efface.models.adapters.sd import StableDiffusion
from efface.suites.spec import Row

SHORT = {"queries": 2, "steps": 2, "generations": 2, "population": 6, "length": 2, "tokens": 2, "top": 4}
SHORT |= {"candidates": 4, "pictures": 3, "batch": 2, "start": "car"}
pytestmark = pytest.mark.filterwarnings("ignore:.*exceeds? 8 tokens:UserWarning")  # the tiny model's room
PROMPTS = ("a cat", "a red cat", "two cats")


def build_quick(name: str) -> Attack:
    known = {field.name for field in dataclasses.fields(attacks.get(name))}
    return attacks.build_attack(name, overrides={key: value for key, value in SHORT.items() if key in known})


def run_attack(
    attack: Attack, model: StableDiffusion, rows: Sequence[Row], **more: Any
) -> list[list[Candidate | None]]:
    """Every round's candidates, none of which succeeds, at an edit that moved some weights and pruned others."""
    names = [name for name in model.weights if "attn2.to_v" in name]
    torch.manual_seed(0)
    values = {n: model.weights[n].detach() * (torch.rand(model.weights[n].shape) > 0.3) for n in names}
    edit = edit_of(model, values)
    context, rounds = dataclasses.replace(build_context(model, edit), steps=3, **more), []
    with edit.apply(model):
        attack.check(context)
        proposals = propose_within_budget(attack, context, rows)
        candidates = next(proposals)
        while candidates is not None:
            rounds.append(list(candidates))
            try:
                candidates = proposals.send([False] * len(rows))
            except StopIteration:
                candidates = None
    return rounds


def describe_candidate(candidate: Candidate | None) -> tuple[object, ...]:
    """What of a candidate is exact."""
    if candidate is None:
        return ()
    text = candidate.prompt.text if isinstance(candidate.prompt, Prompt) else candidate.prompt
    return text, candidate.seed, candidate.since, candidate.note


@pytest.fixture(params=attacks.list_names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_it_says_what_it_is(name: str) -> None:
    facts, kind = attacks.describe(name), attacks.get(name)
    assert facts["threat"] in get_args(Threat) and facts["version"] == kind.version and facts["about"]
    assert getattr(kind, "__final__", False) and attacks.name_attack(kind()) == name
    assert {*kind.budget_fields} <= {field.name for field in dataclasses.fields(kind)}


def test_it_keeps_its_budget_and_leaves_the_weights_as_they_were(name: str, eps_model: StableDiffusion) -> None:
    before = {key: weight.detach().clone() for key, weight in eps_model.weights.items()}
    rows, attack = build_rows(*PROMPTS), build_quick(name)
    rounds = run_attack(attack, eps_model, rows)
    assert 1 <= len(rounds) <= attack.queries
    assert all(len(candidates) == len(rows) for candidates in rounds) and any(
        candidate for candidates in rounds for candidate in candidates
    )
    assert all(torch.equal(weight, before[key]) for key, weight in eps_model.weights.items())
    if stages := attack.list_stages():
        assert [{candidate.note for candidate in candidates if candidate} for candidates in rounds] == [
            {stage} for stage in stages
        ]
    spent = attack.list_budget_shares()
    assert (spent is None) == (not attack.budget_fields)
    assert not spent or (len(spent) == len(rounds) and list(spent) == sorted(spent) and spent[-1] == 1)
    assert bool(stages) == attack.one_setting_per_query


def test_a_row_meets_the_same_attack_whoever_is_beside_it(name: str, eps_model: StableDiffusion) -> None:
    rows = build_rows(*PROMPTS)
    together, alone = (run_attack(build_quick(name), eps_model, some) for some in (rows, rows[1:2]))
    assert len(alone) == len(together)
    for many, (one,) in zip(together, alone, strict=True):
        assert describe_candidate(many[1]) == describe_candidate(one)
        if one and many[1] and one.start is not None:
            assert torch.allclose(one.start, many[1].start, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in attacks.list_names() if not attacks.get(name).learns_from_images])
def test_one_that_learns_from_no_pictures_reads_none(name: str, eps_model: StableDiffusion) -> None:
    class Unread:
        def __getattr__(self, asked: str) -> None:
            raise AssertionError(f"{name} read its pictures ({asked})")

    assert run_attack(build_quick(name), eps_model, build_rows(*PROMPTS), pictures=Unread())


@pytest.mark.parametrize("field", ["queries", "steps"])
def test_nothing_to_spend_is_refused(name: str, field: str) -> None:
    if field in {f.name for f in dataclasses.fields(attacks.get(name))}:
        with pytest.raises(ValueError, match=r"at least 1|must be|positive|above 0"):
            attacks.build_attack(name, overrides={field: 0})
        with pytest.raises(ValueError, match=f"{name}.{field} is a whole number"):
            attacks.build_attack(name, overrides={field: 1.5})
