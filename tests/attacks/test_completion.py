"""Completion: where drawing begins, against the forward process and diffusers' own steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from diffusers.schedulers import scheduling_euler_ancestral_discrete
from torch import Tensor

from attack_context import build_context, build_rows, build_shifted, drive
from efface.attacks.base import Attack, AttackContext, Candidate, propose_within_budget
from efface.attacks.completion import Completion
from efface.attacks.inversion import ConceptInversion
from efface.attacks.relearn import Relearn
from efface.functional.adversary import NoGradient
from efface.models.adapters.sd import StableDiffusion
from tiny import tiny_model

ROWS = build_rows("a cat", "a red cat", "red apple")


def list_rounds(attack: Completion, context: AttackContext, rows: Sequence = ROWS) -> list[list[Candidate]]:
    attack.check(context)
    return drive(propose_within_budget(attack, context, rows), context.model, list)


def draw_noise(model: StableDiffusion, seed: int) -> Tensor:
    return torch.randn(model.latent_shape, generator=torch.Generator().manual_seed(seed))


def find_given_picture(context: AttackContext, x: Tensor, seed: int, t: int) -> int:
    """Which picture was noised to this state."""
    bar = float(context.model.levels.alpha.square()[t])
    z = (x - (1 - bar) ** 0.5 * draw_noise(context.model, seed)) / bar**0.5  # type: ignore[arg-type]
    distances = (context.model.encode_pictures(context.pictures) - z).flatten(1).norm(dim=1)
    assert distances.min() < 1e-3
    return int(distances.argmin())


def test_drawing_begins_at_a_noised_picture(model: StableDiffusion) -> None:
    context = build_context(model, build_shifted(model))
    found = list_rounds(Completion(queries=5, strengths=(0.5, 0.75)), context)
    times = model.list_timesteps(4)
    assert [[candidate.since for candidate in candidates] for candidates in found] == [[k] * 3 for k in (2, 2, 1, 1, 2)]
    assert [candidates[0].note for candidates in found] == [
        *("strength 0.5", "strength 0.5, no words", "strength 0.75", "strength 0.75, no words", "strength 0.5")
    ]
    asked = [[candidate.prompt for candidate in candidates] for candidates in found]
    assert asked == [[row.prompt for row in ROWS] if said else [""] * 3 for said in (1, 0, 1, 0, 1)]
    shown = [
        [
            find_given_picture(context, candidate.start, candidate.seed, int(times[candidate.since]))
            for candidate in candidates
            if candidate.start is not None
        ]
        for candidates in found
    ]
    assert all(len(set(column)) == 5 for column in zip(*shown, strict=True)), "another picture for each try of a row"
    assert [[candidate.seed for candidate in candidates] for candidates in found] == [[row.seed for row in ROWS]] * 5


def test_a_row_is_tried_alike_whichever_rows_are_tried_beside_it(model: StableDiffusion) -> None:
    context = build_context(model, None)
    for how in ("img2img", "inpaint"):
        attack = Completion(queries=2, how=how)  # type: ignore[arg-type]
        together = [candidates[1] for candidates in list_rounds(attack, context)]
        alone = [candidates[0] for candidates in list_rounds(attack, context, ROWS[1:2])]
        for a, b in zip(together, alone, strict=True):
            assert a.start is not None and b.start is not None and torch.allclose(a.start, b.start, atol=1e-4)


def test_more_tries_than_pictures_begin_from_other_noise(eps_model: StableDiffusion) -> None:
    context = build_context(eps_model, None, pictures=2)
    seeds = [candidates[0].seed for candidates in list_rounds(Completion(queries=5), context)]
    assert seeds == [ROWS[0].seed + i for i in (0, 0, 1, 1, 2)]


def test_inpainting_puts_the_known_half_back_before_every_step(model: StableDiffusion) -> None:
    context = build_context(model, None, pictures=2)
    attack = Completion(how="inpaint", queries=4, halves=("left", "top", "right", "bottom"), says=("{}",))
    found = list_rounds(attack, context)
    assert [candidates[0].note for candidates in found] == ["left half", "top half", "right half", "bottom half"]
    halves = [
        (slice(0, 8), slice(0, 4)),
        (slice(0, 4), slice(0, 8)),
        (slice(0, 8), slice(4, 8)),
        (slice(4, 8), slice(0, 8)),
    ]
    scheduler = model.build_scheduler()
    scheduler.set_timesteps(4)
    for (down, across), candidates in zip(halves, found, strict=True):
        for row, candidate in zip(ROWS[:2], candidates[:2], strict=True):
            assert candidate.since == 3 and candidate.start is not None
            candidates = []
            for z in model.encode_pictures(context.pictures):
                x, eps = draw_noise(model, candidate.seed), draw_noise(model, candidate.seed)
                for i, t in enumerate(scheduler.timesteps):
                    bar = model.levels.alpha.square()[int(t)]
                    x = x.clone()
                    x[:, down, across] = (bar.sqrt() * z + (1 - bar).sqrt() * eps).float()[:, down, across]
                    if i == 3:
                        break
                    conds = model.encode(["", row.prompt])
                    with torch.no_grad():
                        blank, asked = model.predict(x[None], t, conds[[0]], conds[[1]])
                    x = scheduler.step(blank + 3.0 * (asked - blank), t, x[None], return_dict=False)[0][0]
                candidates.append(float((x - candidate.start).abs().max()))
            assert min(candidates) < 1e-3


def test_a_picture_that_is_hardly_noised_comes_out_as_it_went_in(eps_model: StableDiffusion) -> None:
    """Why low strengths prove nothing: even a random network hands the picture back."""
    context = build_context(eps_model, None)

    def distance(strength: float) -> float:
        ((candidate, *_), *_) = list_rounds(Completion(strengths=(strength,), queries=1), context)
        assert candidate.start is not None
        picture = eps_model.images(
            [candidate.prompt], [candidate.seed], steps=4, start=candidate.start[None], since=candidate.since
        )
        shown = eps_model.decode(eps_model.encode_pictures(context.pictures))
        return float((picture.float() - shown.float()).abs().flatten(1).mean(dim=1).min())

    assert distance(0.25) < distance(0.75)


@pytest.mark.parametrize("kind", [Completion, ConceptInversion, Relearn])
def test_without_a_picture_nothing_is_tried(kind: Callable[[], Attack], eps_model: StableDiffusion) -> None:
    context = build_context(eps_model, None, pictures=0)
    kind().check(context)
    with pytest.raises(NoGradient, match="no picture of cat that the judges confirm"):
        next(kind().propose(context, ROWS))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"how": "outpaint"}, "img2img, inpaint"),
        ({"halves": ("middle",)}, "left, right, top, bottom"),
        ({"says": ()}, "says is empty"),
        ({"strengths": (1.0,)}, "between 0 and 1"),
        ({"queries": 0}, "queries must be at least 1"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Completion(**settings)


def test_a_scheduler_that_adds_noise_adds_other_noise_in_every_step_of_inpainting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, added = tiny_model(), list[Tensor]()
    model.pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(model.pipeline.scheduler.config)
    make = scheduling_euler_ancestral_discrete.randn_tensor

    def note(*args: Any, **how: Any) -> Tensor:
        added.append(make(*args, **how))
        return added[-1]

    monkeypatch.setattr(scheduling_euler_ancestral_discrete, "randn_tensor", note)
    next(Completion(how="inpaint", queries=1).propose(build_context(model, None), ROWS[:1]))
    assert len(added) == 3 and all(not torch.equal(a, b) for a, b in itertools.combinations(added, 2))
