"""What sources need, say and share: memory before a drawing, progress meanwhile, and the points that `Early` takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from efface.concept import Erasure
from efface.models.adapters.sd import StableDiffusion
from efface.models.cond import Cond
from efface.models.trajectory_cache import TrajectoryCache
from efface.training.config import TrainConfig
from efface.training.distributed import find_process_group
from efface.training.interfaces import Context, MemoryFootprint, Source, States, Step
from efface.training.states import trajectories
from efface.training.states.conditions import Conditions
from efface.training.states.early import Early
from efface.training.states.pictures import ANY, Pictures, encode_by_caption
from efface.training.states.shared import Shared
from efface.training.states.trajectories import Frozen, Refreshed, Student
from efface.training.updates.dense import Dense

LATENT = 4 * 8 * 8
"""Numbers of the tiny model's latents, of 4 bytes each."""


class Recording(Source):
    """Gives states of nothing, and notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], list[str]]] = []

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        self.asked.append((list(step.points), list(prompts)))
        return States(torch.zeros(len(prompts), 1), torch.zeros(len(prompts)))


def build_context(model: StableDiffusion, batch: int = 3, draw_steps: int = 10) -> Context:
    update = Dense("xattn", 1e-3)
    config = TrainConfig(steps=1, batch=batch, draw_steps=draw_steps)
    context = Context(model, Erasure(("cat",)), config, update, model.encode([""]))
    update.prepare(context)
    return context


def step_of(context: Context, points: Sequence[int]) -> Step:
    zeros = [0] * len(points)
    return Step(0, context.update, torch.Generator(), zeros, zeros, zeros, list(points))


@pytest.mark.parametrize(("first", "wanted"), [(4, [0, 0, 1, 3]), (10, [0, 1, 4, 9]), (25, [0, 1, 4, 9])])
def test_early_points_are_spread_over_the_first_steps(eps_model, first, wanted):
    """floor(p first / 10) for p of 10 steps; where there are fewer steps than `first`, the points stay."""
    context, source = build_context(eps_model), Recording()
    points = [0, 1, 4, 9]
    Early(source, first).sample_states(context, step_of(context, points), ["cat"] * 4, context.uncond)
    assert source.asked == [(wanted, ["cat"] * 4)]


def test_states_are_shared_within_a_step_and_by_prompt(eps_model):
    context, inner = build_context(eps_model), Recording()
    source, step = Shared(inner), step_of(context, [1, 2])
    once = source.sample_states(context, step, ["cat", "dog"], context.uncond)
    assert source.sample_states(context, step, ("cat", "dog"), context.uncond) is once
    assert source.sample_states(context, step, ["cat", "car"], context.uncond) is not once
    source.sample_states(context, replace(step), ["cat", "car"], context.uncond)
    assert [prompts for _, prompts in inner.asked] == [["cat", "dog"], ["cat", "car"], ["cat", "car"]]


def test_the_memory_of_trajectories(eps_model):
    """In fp32: a recorded step holds a state and two predictions, so 10 of them take 30 latents a trajectory."""
    eps_model.draw_batch, each = 4, 30 * LATENT * 4
    for batch, recorded in ((1, 0), (2, 2), (3, 3)):
        # A row alone is drawn to its own point, and only rows together need each other's steps.
        assert Student(10, 3.0).estimate_footprint(build_context(eps_model, batch)) == MemoryFootprint(
            batch, recorded * each
        )
    context = build_context(eps_model)
    alone = MemoryFootprint(3, 3 * each)
    assert Frozen(10, 3.0, 3).estimate_footprint(context) == alone
    frozen, refreshed = Frozen(10, 3.0, 3), Refreshed(10, 3.0, 3, 5)
    for source in (frozen, refreshed):
        source.expect(["cat", "dog"])
        source.expect(["dog", "car", "rose", "lion"])
    drawn = MemoryFootprint(4, 4 * each, cache_bytes=15 * each, drawn=15)
    assert frozen.estimate_footprint(context) == drawn
    # The student's states come beside what the teacher's cache may hold, and have no predictions.
    states = 15 * 10 * LATENT * 4
    for bound, image_bytes in ((states - 100, 100), (states, 0), (states + 100, 0)):
        eps_model.recordings = TrajectoryCache(bound=bound)
        assert refreshed.estimate_footprint(context) == replace(drawn, image_bytes=image_bytes)


def test_the_memory_of_pictures(eps_model):
    eps_model.draw_batch = 4
    stack = torch.zeros(7, 4, 8, 8)
    given = Pictures(5, 10, 3.0, {"rose": stack, "a rose": stack})
    context = build_context(eps_model)
    assert given.estimate_footprint(context) == MemoryFootprint(0, image_bytes=7 * LATENT * 4)
    given.expect(["cat", "dog", "rose"])
    assert given.estimate_footprint(context) == MemoryFootprint(4, image_bytes=17 * LATENT * 4, drawn=10)
    few = Pictures(1, 10, 3.0)
    few.expect(["cat", "dog", "cat"])
    assert few.estimate_footprint(context) == MemoryFootprint(2, image_bytes=2 * LATENT * 4, drawn=2)
    served = Pictures(5, 10, 3.0, {ANY: stack})
    served.expect(["cat", "dog"])
    assert served.estimate_footprint(context) == MemoryFootprint(0, image_bytes=7 * LATENT * 4)


def test_a_drawing_says_how_far_it_is(eps_model):
    """What is drawn of what is needed, before each batch; trajectories also say when they are done."""
    eps_model.draw_batch = 4
    told: list[tuple[int, int]] = []
    context = replace(build_context(eps_model, draw_steps=2), on_drawn=lambda done, total: told.append((done, total)))
    for source, wanted in (
        (Frozen(2, 3.0, 3), [(0, 9), (4, 9), (8, 9), (9, 9)]),
        (Pictures(3, 2, 3.0), [(0, 9), (4, 9), (8, 9)]),
    ):
        source.expect(["cat", "dog", "car"])
        told.clear()
        step = step_of(context, [1])
        source.sample_states(context, step, ["cat"], eps_model.encode(["cat"]))
        assert told == wanted
        source.sample_states(context, step, ["dog"], eps_model.encode(["dog"]))
        assert told == wanted


def test_each_batch_holds_the_trajectories_that_were_asked_for(eps_model):
    """Five of them two at once, and each as the base draws it alone from its seed."""
    eps_model.draw_batch = 2
    context, words = build_context(eps_model, draw_steps=3), ["cat", "dog", "car", "rose", "lion"]
    source = Frozen(3, 3.0, 1)
    source.expect(words)
    with torch.no_grad():
        found = source.sample_states(context, step_of(context, [0, 1, 2, 0, 2]), words, eps_model.encode(words))
        for i, (word, point) in enumerate(zip(words, (0, 1, 2, 0, 2), strict=True)):
            alone = eps_model.sample(
                eps_model.encode([word]), context.uncond, [2**40], steps=3, guidance=3.0, record=True, sampler="ddim"
            )
            assert found.t[i] == alone.t[point]
            for column, row in (("states", found.x), ("eps_c", found.known["eps_c"]), ("eps_0", found.known["eps_0"])):
                assert torch.allclose(row[i], getattr(alone, column)[point, 0], atol=1e-4)


@pytest.mark.parametrize(
    ("rank", "words"), [(0, [["cat", "dog"], ["lion", "lion"]]), (1, [["car", "rose"], ["lion", "lion"]])]
)
def test_processes_draw_batches_in_turn_and_a_spare_one_draws_the_last_again(eps_model, monkeypatch, rank, words):
    """Five trajectories two at once are three batches: the first process draws the first and the last, the second the
    second, and the last too, because both have to take part."""
    eps_model.draw_batch = 2
    context, drawn = build_context(eps_model, draw_steps=2), []
    alone = find_process_group()
    group = SimpleNamespace(
        rank=rank, size=2, all_gather_draws=lambda draw: [draw, draw], find_any=alone.find_any, shard_apply=None
    )
    monkeypatch.setattr(trajectories, "find_process_group", lambda: group)
    source, sample = Frozen(2, 3.0, 1), eps_model.sample
    monkeypatch.setattr(eps_model, "sample", lambda c, *a, **how: (drawn.append(c.tokens), sample(c, *a, **how))[1])
    source.expect(["cat", "dog", "car", "rose", "lion"])
    source.sample_states(context, step_of(context, [0]), ["lion"], context.uncond)
    assert len(drawn) == 2
    assert all(torch.equal(tokens, eps_model.encode(each).tokens) for tokens, each in zip(drawn, words, strict=True))


def test_a_recording_that_the_model_keeps_is_not_drawn_again(eps_model, monkeypatch):
    eps_model.draw_batch = 1
    context, sample, drawn = build_context(eps_model, draw_steps=2), eps_model.sample, []
    monkeypatch.setattr(eps_model, "sample", lambda c, *a, **how: (drawn.append(c.tokens), sample(c, *a, **how))[1])
    for words in (["cat"], ["cat", "dog"], ["dog", "car", "cat"]):
        source = Frozen(2, 3.0, 1)
        source.expect(words)
        source.sample_states(context, step_of(context, [1]), words[:1], context.uncond)
    assert [eps_model.encode([word]).tokens.tolist() for word in ("cat", "dog", "car")] == [d.tolist() for d in drawn]


@pytest.mark.parametrize(("processes", "at_once"), [(1, 4), (2, 3), (5, 1)])
def test_recordings_of_the_student_are_shared_out_among_processes(eps_model, monkeypatch, processes, at_once):
    """Five trajectories, four at most at once: each process draws an equal part, rounded up."""
    eps_model.draw_batch, drawn = 4, []
    context, sample = build_context(eps_model, draw_steps=2), eps_model.sample
    group = SimpleNamespace(rank=0, size=processes, all_gather_draws=lambda draw: [draw] * processes)
    monkeypatch.setattr(trajectories, "find_process_group", lambda: group)
    monkeypatch.setattr(eps_model, "sample", lambda c, *a, **how: (drawn.append(len(c)), sample(c, *a, **how))[1])
    source, words = Refreshed(2, 3.0, 1, refresh=1), ["cat", "dog", "car", "rose", "lion"]
    source.expect(words)
    source.sample_states(context, replace(step_of(context, [0]), index=1), ["lion"], context.uncond)
    assert set(drawn) == {at_once} and len(source.found) == 5


@pytest.mark.parametrize(("points", "recorded"), [([2], False), ([2, 2], False), ([1, 2], True)])
def test_the_students_way_is_recorded_only_where_rows_leave_it_at_different_points(
    eps_model, monkeypatch, points, recorded
):
    context, sample, asked = build_context(eps_model, draw_steps=3), eps_model.sample, []
    monkeypatch.setattr(eps_model, "sample", lambda *a, **how: (asked.append(how["record"]), sample(*a, **how))[1])
    Student(3, 3.0).sample_states(context, step_of(context, points), ["cat"] * len(points), eps_model.encode(["cat"]))
    assert asked == [recorded]


def test_recordings_under_one_rescaled_guidance_are_not_those_under_another(eps_model):
    context, source = build_context(eps_model, draw_steps=2), Frozen(2, 3.0, 1)
    found = []
    for rescale in (0.0, 0.5, 0.7, 0.5):
        eps_model.guidance_rescale, source.found = rescale, {}
        source.sample_states(context, step_of(context, [1]), ["cat"], context.uncond)
        found.append(source.found["cat", 2**40])
    assert len(set(found)) == 3 and found[1] == found[3]


def test_expected_pictures_are_drawn_together_and_one_that_nobody_announced_by_itself(eps_model, monkeypatch):
    context, sample, drawn = build_context(eps_model, draw_steps=2), eps_model.sample, []
    monkeypatch.setattr(eps_model, "sample", lambda c, *a, **how: (drawn.append(len(c)), sample(c, *a, **how))[1])
    eps_model.draw_batch, source, words = 8, Pictures(1, 2, 3.0), ["dog", "rose"]
    source.expect(["cat", "dog"])
    source.sample_states(context, step_of(context, [1, 1]), words, eps_model.encode(words))
    assert drawn == [2, 1] and source.store.keys() == {"cat", "dog", "rose"}


def test_few_pictures_are_encoded_at_once_and_all_keep_their_places():
    model, sizes = SimpleNamespace(encode_pictures=lambda part: (sizes.append(len(part)), part * 2)[1]), []
    pictures = {"cat": torch.arange(70.0).view(70, 1, 1, 1), "dog": torch.ones(2, 1, 1, 1)}
    found: dict[str, torch.Tensor] = encode_by_caption(model, pictures)  # type: ignore[arg-type]
    assert sizes == [32, 32, 6, 2]
    assert found.keys() == pictures.keys() and all(torch.equal(found[key], 2 * pictures[key]) for key in found)


def test_no_two_kinds_of_states_start_from_the_same_noise(eps_model, monkeypatch):
    """Each kind has a range of seeds above those of evaluations, and other trainings and drawings have other seeds."""
    drawn: list[int] = []
    sample = eps_model.sample
    monkeypatch.setattr(
        eps_model, "sample", lambda c, u, seeds, **how: (drawn.extend(seeds), sample(c, u, seeds, **how))[1]
    )
    cond = eps_model.encode(["cat"])
    kinds: dict[int, Callable[[], Source]] = {
        40: lambda: Frozen(2, 3.0, 3, refresh=1),
        41: lambda: Pictures(3, 2, 3.0),
        42: lambda: Conditions({"cat": cond}, 2, 3.0, 3),
    }
    for exponent, make in kinds.items():
        found: list[set[int]] = []
        for seed, index in ((0, 0), (1, 0), (0, 1)):
            plain, source = build_context(eps_model, draw_steps=2), make()
            eps_model.recordings = TrajectoryCache()
            context = replace(plain, config=replace(plain.config, seed=seed))
            drawn.clear()
            source.sample_states(context, replace(step_of(context, [1]), index=index), ["cat"], cond)
            assert len(drawn) == len(set(drawn)) == 3
            # An edit that is trained again, by any later version, starts from the same noise.
            assert min(drawn) == 2**exponent + seed * 1_000_003 + (3 * index if exponent == 40 else 0)
            assert all(2**exponent <= each < 2 ** (exponent + 1) for each in drawn)
            found.append(set(drawn))
        assert not found[0] & found[1]
        assert bool(found[0] & found[2]) == (exponent > 40)  # only trajectories are drawn anew


def test_wrapped_sources_pass_on_what_they_are_told(eps_model):
    """Prompts to expect, an estimate of memory, and the recordings that a checkpoint keeps."""
    context = build_context(eps_model)
    for wrap in (Shared, lambda source: Early(source, 4)):
        inner = Refreshed(10, 3.0, 3, 5)
        outer = wrap(inner)
        outer.expect(["cat", "dog"])
        assert list(inner.expected) == ["cat", "dog"]
        assert outer.estimate_footprint(context) == inner.estimate_footprint(context) != MemoryFootprint()
        outer.load_state_dict({"epoch": torch.tensor(2), "7 a cat": torch.ones(3)})
        assert inner.epoch == 2 and torch.equal(inner.found["a cat", 7], torch.ones(3))
        assert outer.state_dict().keys() == {"epoch", "7 a cat"}
