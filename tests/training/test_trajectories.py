"""Where states come from: recorded trajectories of the base or the student, and what they depend on."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from efface.concept import Erasure
from efface.methods.eap import EAP
from efface.methods.esd import ESD
from efface.models.adapters.sd import StableDiffusion
from efface.models.trajectory_cache import TrajectoryCache, choose_draw_batch
from efface.training.interfaces import States, Step
from efface.training.states.trajectories import Frozen, Refreshed
from efface.training.trainer import Trainer
from tiny import WORDS

QUICK = {"steps": 3, "batch": 2, "draw_steps": 3, "lr": 1e-3, "paths": 2, "source": "frozen"}


def build_trainer(method: ESD | EAP, model: StableDiffusion) -> Trainer:
    return method.build_trainer(model, Erasure(("cat",)))


def sample_query(
    trainer: Trainer, source: Frozen, prompts: list[str], noise: list[int], points: list[int], index: int = 0
) -> tuple:
    step = Step(index, trainer.update, torch.Generator(), [0] * len(prompts), [0] * len(prompts), noise, points)
    states = source.sample_states(trainer.context, step, prompts, trainer.model.encode(prompts))
    return states.x, states.t, states.known["eps_c"], states.known["eps_0"]


def is_equal(one: tuple, two: tuple) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def watch_drawings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of the sampling loop draws, as they come."""
    sizes: list[int] = []
    sample = StableDiffusion.sample

    def noted(self, cond, uncond, seeds, **how):
        sizes.append(len(seeds))
        return sample(self, cond, uncond, seeds, **how)

    monkeypatch.setattr(StableDiffusion, "sample", noted)
    return sizes


def test_what_a_row_holds_does_not_depend_on_who_was_drawn_with_it(eps_model):
    """Bit for bit: alone, with others that were expected, or when some of those were there already."""
    trainer = build_trainer(ESD(**QUICK), eps_model)
    asked = (["dog", "rose"], [5, 8], [2, 0])
    found = []
    for before in ([], ["rose"], ["car", "tiger"]):
        source = Frozen(3, 3.0, 2)
        trainer.model.recordings = TrajectoryCache()
        source.expect(["dog", "rose", "car", "tiger", "apple"])
        for word in before:
            sample_query(trainer, source, [word], [0], [0])
        found.append(sample_query(trainer, source, *asked))
    assert is_equal(found[0], found[1])
    assert is_equal(found[0], found[2])


def test_expected_prompts_are_drawn_together_in_batches_of_one_size(eps_model, monkeypatch):
    sizes = watch_drawings(monkeypatch)
    eps_model.draw_batch = 4
    trainer, source = build_trainer(ESD(**QUICK), eps_model), Frozen(3, 3.0, 3)
    words = list(WORDS[:5])
    source.expect(words)
    sample_query(trainer, source, [words[4]], [0], [1])
    assert sizes == [4, 4, 4, 4]  # 15 pictures, the last batch filled up
    sample_query(trainer, source, words[:4], [0, 1, 2, 3], [0, 1, 2, 0])
    assert len(sizes) == 4
    sample_query(trainer, source, ["truck"], [0], [0])
    assert sizes[4:] == [3]


def test_the_search_draws_its_candidates_in_one_go(eps_model, monkeypatch):
    """And the rows that a run evaluates are those of its trajectories and its students, no more."""
    drawn = watch_drawings(monkeypatch)
    method = EAP(**{**QUICK, "steps": 8}, keep_paths=1)
    trainer = build_trainer(method, eps_model)
    candidates = len(trainer.terms[1].search.lists[0])
    rows: list[int] = []
    eps_model.unet.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    trainer.train()
    assert sorted(drawn) == sorted([2, candidates])
    assert sum(rows) == 2 * 3 * sum(drawn) + 8 * (2 * 2 + 2)


def test_refresh_draws_anew_and_lets_go(eps_model):
    trainer, source = build_trainer(ESD(**QUICK), eps_model), Frozen(3, 3.0, 2, refresh=5)
    first = sample_query(trainer, source, ["dog"], [0], [0], index=4)
    later = sample_query(trainer, source, ["dog"], [0], [0], index=5)
    assert not torch.equal(first[0], later[0])
    assert len(trainer.model.recordings.held) == 2


def test_the_students_recording_is_the_students_drawn_as_a_fresh_one_would_be(eps_model):
    """By the weights in place when it is drawn; later steps read it until it is drawn anew."""
    trainer = build_trainer(ESD(**{**QUICK, "source": "student", "lr": 0.3}, refresh=4), eps_model)
    source, cond = trainer.terms[0].source, eps_model.encode(["cat"])
    assert isinstance(source, Refreshed)

    def drawn_now(epoch: int) -> torch.Tensor:
        seeds = [2**40 + 2 * epoch, 2**40 + 2 * epoch + 1]
        with torch.no_grad(), trainer.update.swapped_in():
            return eps_model.sample(
                cond.expand(2), trainer.context.uncond, seeds, steps=3, guidance=3.0, record=True, sampler="ddim"
            ).states

    def rows(index: int) -> States:
        step = Step(index, trainer.update, torch.Generator(), [0] * 6, [0] * 6, [0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 2])
        return source.sample_states(trainer.context, step, ["cat"] * 6, cond)

    first = drawn_now(0)
    found = rows(0)
    assert torch.allclose(found.x, first.flatten(0, 1), atol=1e-5)
    assert found.t.tolist() == [t for t in eps_model.list_timesteps(3, "ddim").tolist() for _ in range(2)]
    assert sorted(found.known) == ["eps_0", "eps_c"]  # the student is still the base
    assert len(eps_model.recordings.held) == 2
    trainer.step(trainer.make_step(0, trainer.update))
    assert torch.equal(rows(3).x, found.x)
    second = drawn_now(1)
    anew = rows(4)
    assert not anew.known
    assert not eps_model.recordings.held
    assert torch.allclose(anew.x, second.flatten(0, 1), atol=1e-5)
    with torch.no_grad():  # and not what the base would have drawn from these seeds
        base = eps_model.sample(
            cond.expand(2),
            trainer.context.uncond,
            source.list_seeds(trainer.context),
            steps=3,
            guidance=3.0,
            record=True,
            sampler="ddim",
        )
    assert not torch.allclose(anew.x[2:], base.states.flatten(0, 1)[2:], atol=1e-3)


def test_preserved_words_may_lie_on_the_base_where_the_target_does_not(eps_model, monkeypatch):
    """The candidates are then drawn once, whatever is drawn anew."""
    sizes = watch_drawings(monkeypatch)
    how = {**QUICK, "source": "student", "steps": 4, "search_turns": 0}
    trainer = build_trainer(EAP(**how, refresh=2, keep_source="frozen", keep_paths=1), eps_model)
    candidates = len(trainer.terms[1].search.lists[0])
    trainer.train()
    assert sorted(sizes) == [2, 2, candidates]
    assert [type(term.source) for term in trainer.terms] == [Refreshed, Frozen]


def test_drawings_are_smaller_where_latents_are_large():
    assert [choose_draw_batch(shape) for shape in ((16, 8, 8), (4, 64, 64), (4, 128, 128), (4, 512, 512))] == [
        32,
        8,
        2,
        1,
    ]


def test_settings_of_a_source_are_the_methods(eps_model):
    source = build_trainer(ESD(**{**QUICK, "refresh": 7}), eps_model).terms[0].source
    assert isinstance(source, Frozen)
    assert (source.steps, source.paths, source.refresh) == (3, 2, asdict(ESD(**{**QUICK, "refresh": 7}))["refresh"])
