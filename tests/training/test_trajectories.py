"""Recorded trajectories: what is kept, what it depends on, and what happens where there is no room."""

from __future__ import annotations

import resource
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from efface.concept import Erasure
from efface.methods.eap import EAP
from efface.methods.esd import ESD
from efface.models.adapters.sd import StableDiffusion
from efface.models.trajectory import Draw
from efface.models.trajectory_cache import StoreFull, TrajectoryCache, choose_draw_batch
from efface.training.interfaces import States, Step
from efface.training.states.trajectories import Frozen, Refreshed
from efface.training.trainer import Trainer
from tiny import WORDS, tiny_model

QUICK = {"steps": 3, "batch": 2, "draw_steps": 3, "lr": 1e-3, "paths": 2, "source": "frozen"}


def trainer_of(method: ESD | EAP, model: StableDiffusion) -> Trainer:
    return method.build_trainer(model, Erasure(("cat",)))


def query(
    trainer: Trainer, source: Frozen, prompts: list[str], noise: list[int], points: list[int], index: int = 0
) -> tuple:
    step = Step(index, trainer.update, torch.Generator(), [0] * len(prompts), [0] * len(prompts), noise, points)
    states = source.sample_states(trainer.context, step, prompts, trainer.model.encode(prompts))
    return states.x, states.t, states.known["eps_c"], states.known["eps_0"]


def equal(one: tuple, two: tuple) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def drawings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of the sampling loop draws, as they come."""
    sizes: list[int] = []
    sample = StableDiffusion.sample

    def noted(self, cond, uncond, seeds, **how):
        sizes.append(len(seeds))
        return sample(self, cond, uncond, seeds, **how)

    monkeypatch.setattr(StableDiffusion, "sample", noted)
    return sizes


def a_draw(n: int, fill: float = 0.0) -> Draw:
    column = torch.full((3, n, 4, 8, 8), fill) + torch.arange(3.0)[:, None, None, None, None]
    return Draw(torch.full((n, 4, 8, 8), fill), torch.tensor([9.0, 5.0, 1.0]), column, column + 1, column + 2)


def test_what_a_row_holds_does_not_depend_on_who_was_drawn_with_it(eps_model):
    """Bit for bit: alone, with others that were expected, or when some of those were there already."""
    trainer = trainer_of(ESD(**QUICK), eps_model)
    asked = (["dog", "rose"], [5, 8], [2, 0])
    found = []
    for before in ([], ["rose"], ["car", "tiger"]):
        source = Frozen(3, 3.0, 2)
        trainer.model.recordings = TrajectoryCache()
        source.expect(["dog", "rose", "car", "tiger", "apple"])
        for word in before:
            query(trainer, source, [word], [0], [0])
        found.append(query(trainer, source, *asked))
    assert equal(found[0], found[1])
    assert equal(found[0], found[2])


def test_expected_prompts_are_drawn_together_in_batches_of_one_size(eps_model, monkeypatch):
    sizes = drawings(monkeypatch)
    eps_model.draw_batch = 4
    trainer, source = trainer_of(ESD(**QUICK), eps_model), Frozen(3, 3.0, 3)
    words = list(WORDS[:5])
    source.expect(words)
    query(trainer, source, [words[4]], [0], [1])
    assert sizes == [4, 4, 4, 4]  # 15 pictures, the last batch filled up
    query(trainer, source, words[:4], [0, 1, 2, 3], [0, 1, 2, 0])
    assert len(sizes) == 4
    query(trainer, source, ["truck"], [0], [0])
    assert sizes[4:] == [3]


def test_the_search_draws_its_candidates_in_one_go(eps_model, monkeypatch):
    """And the rows that a run evaluates are those of its trajectories and its students, no more."""
    drawn = drawings(monkeypatch)
    method = EAP(**{**QUICK, "steps": 8}, keep_paths=1)
    trainer = trainer_of(method, eps_model)
    candidates = len(trainer.terms[1].search.lists[0])
    rows: list[int] = []
    eps_model.unet.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    trainer.train()
    assert sorted(drawn) == sorted([2, candidates])
    assert sum(rows) == 2 * 3 * sum(drawn) + 8 * (2 * 2 + 2)


@pytest.mark.parametrize("bound", [10_000_000, 0])
@pytest.mark.parametrize("kept", [True, False])
def test_a_row_is_the_same_from_memory_a_spilled_file_or_a_folder(tmp_path, bound, kept):
    recordings = TrajectoryCache(tmp_path if kept else None, bound)
    recordings.put("a", a_draw(1, 7.0))
    assert "a" in recordings
    assert "b" not in recordings
    assert ("a" in recordings.held) == (bound > 0)
    t, x, eps_c, eps_0 = recordings.read_step("a", 1)
    assert t == 5
    assert torch.equal(x, torch.full((4, 8, 8), 8.0))
    assert torch.equal(eps_c, x + 1)
    assert torch.equal(eps_0, x + 2)
    assert len(list(tmp_path.glob("*.safetensors"))) == kept


def test_memory_is_bounded_and_the_least_used_goes_first():
    one = sum(t.nbytes for t in vars(a_draw(1, 0.1)).values())
    recordings = TrajectoryCache(bound=2 * one)
    for name in "abc":
        recordings.put(name, a_draw(1, 0.1))
        recordings.read_step("a", 0)
    assert set(recordings.held) == {"a", "c"}
    assert recordings.used == 2 * one
    assert "b" in recordings
    recordings.evict("a")
    assert recordings.used == one
    with pytest.raises(ValueError, match="not below 0"):
        TrajectoryCache(bound=-1)


def test_a_later_run_reads_what_an_earlier_one_drew(tmp_path):
    """Same request: the network draws nothing, and the edit is the same bit for bit. Another seed draws anew."""
    edits, rows = [], []
    for seed in (0, 0, 1):
        model = tiny_model()
        model.recordings = TrajectoryCache(tmp_path)
        count: list[int] = []
        model.unet.register_forward_pre_hook(lambda _module, args, count=count: count.append(len(args[0])))
        edits.append(ESD(**QUICK, seed=seed).fit(model, Erasure(("cat",))))
        rows.append(sum(count))
    assert rows == [2 * 2 * 3 + 6, 6, 2 * 2 * 3 + 6]
    assert all(torch.equal(value, edits[1].values[name]) for name, value in edits[0].values.items())
    assert any(not torch.equal(value, edits[2].values[name]) for name, value in edits[0].values.items())


def test_what_another_base_or_an_edit_draws_is_not_taken_for_its_own(tmp_path):
    keys = set()
    for seed in (0, 1):
        model = tiny_model(seed=seed)
        model.recordings = TrajectoryCache(tmp_path)
        ESD(**QUICK).fit(model, Erasure(("cat",)))
        keys = {file.name for file in tmp_path.glob("*.safetensors")}
        assert len(keys) == 2 * (seed + 1)
    edit = ESD(**QUICK).fit(model, Erasure(("dog",)))
    with edit.apply(model):
        ESD(**QUICK).fit(model, Erasure(("rose",)))
    files = {file.name for file in tmp_path.glob("*.safetensors")}
    assert len(files) == len(keys) + 2  # the dog's, by the base; the rose's was drawn by an edited model


def test_refresh_draws_anew_and_lets_go(eps_model):
    trainer, source = trainer_of(ESD(**QUICK), eps_model), Frozen(3, 3.0, 2, refresh=5)
    first = query(trainer, source, ["dog"], [0], [0], index=4)
    later = query(trainer, source, ["dog"], [0], [0], index=5)
    assert not torch.equal(first[0], later[0])
    assert len(trainer.model.recordings.held) == 2


def test_the_students_recording_is_the_students_drawn_as_a_fresh_one_would_be(eps_model):
    """By the weights in place when it is drawn; later steps read it until it is drawn anew."""
    trainer = trainer_of(ESD(**{**QUICK, "source": "student", "lr": 0.3}, refresh=4), eps_model)
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
    sizes = drawings(monkeypatch)
    how = {**QUICK, "source": "student", "steps": 4, "search_turns": 0}
    trainer = trainer_of(EAP(**how, refresh=2, keep_source="frozen", keep_paths=1), eps_model)
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


def test_a_full_disk_stops_the_run_which_then_goes_on(eps_model, tmp_path):
    """Files can't grow beyond 1 kB: the store says so, nothing half is left, and the same run ends as it would have."""
    whole = EAP(**QUICK).fit(tiny_model(), Erasure(("cat",)))
    folder, checkpoint = tmp_path / "store", tmp_path / "checkpoint"
    eps_model.recordings = TrajectoryCache(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreFull, match=r"cannot keep .* MB in .*store.*--store"):
            EAP(**QUICK).fit(eps_model, Erasure(("cat",)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(folder.iterdir()) == []
    edit = EAP(**QUICK).fit(eps_model, Erasure(("cat",)), checkpoint=checkpoint)
    assert all(torch.equal(value, edit.values[name]) for name, value in whole.values.items())


def test_a_disk_without_room_for_a_checkpoint_leaves_the_one_before(tmp_path, monkeypatch):
    """Files can't grow beyond 1 kB after two steps: the run says which file, and goes on from the first save."""
    monkeypatch.setattr("efface.training.trainer.SAVE_EVERY", 2)
    method = ESD(**{**QUICK, "steps": 6})
    whole = method.fit(tiny_model(), Erasure(("cat",)))
    checkpoint = tmp_path / "checkpoint"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: int, _of: int, **_: object) -> None:
        if step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    try:
        with pytest.raises(OSError, match=r"cannot write .*checkpoint"):
            method.fit(tiny_model(), Erasure(("cat",)), checkpoint=checkpoint, progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]
    steps: list[int] = []
    edit = method.fit(
        tiny_model(), Erasure(("cat",)), checkpoint=checkpoint, progress=lambda i, n, **_: steps.append(i)
    )
    assert steps == [3, 4, 5, 6]
    assert all(torch.equal(value, edit.values[name]) for name, value in whole.values.items())


def test_predictions_are_kept_narrow_where_that_loses_nothing(tmp_path):
    draw = a_draw(1, 0.1)  # 0.1 is no bf16, and its sums are none
    exact = Draw(draw.x, draw.t, draw.states, draw.eps_c.bfloat16().float(), draw.eps_0)
    recordings = TrajectoryCache(tmp_path)
    recordings.put("a", exact)
    held = recordings.held["a"]
    assert (held.eps_c.dtype, held.eps_0.dtype) == (torch.bfloat16, torch.float32)
    for bound in (10**6, 0):
        again = TrajectoryCache(tmp_path, bound)
        assert "a" in again
        _, x, eps_c, eps_0 = again.read_step("a", 2)
        assert torch.equal(x, exact.states[2, 0])
        assert torch.equal(eps_c.float(), exact.eps_c[2, 0])
        assert torch.equal(eps_0, exact.eps_0[2, 0])


def test_what_is_forgotten_leaves_no_file_and_what_is_kept_counts_once():
    recordings = TrajectoryCache(bound=0)
    recordings.put("a", a_draw(1))
    file = recordings.spilled["a"].file
    assert file.exists()
    recordings.evict("a")
    assert not file.exists()
    assert "a" not in recordings
    roomy = TrajectoryCache()
    roomy.put("a", a_draw(1))
    used = roomy.used
    roomy.put("a", a_draw(1))
    assert roomy.used == used > 0


def test_a_store_that_fills_up_midway_keeps_the_training(tmp_path, monkeypatch):
    """The second drawing of a refreshed source finds no room: the checkpoint stands at the step that needed it."""
    method = ESD(**{**QUICK, "steps": 6}, refresh=3)
    whole = method.fit(tiny_model(), Erasure(("cat",)))
    model, checkpoint = tiny_model(), tmp_path / "checkpoint"
    model.recordings = TrajectoryCache(tmp_path / "store")
    put, calls = TrajectoryCache.put, []

    def full(self: TrajectoryCache, key: str, draw: Draw) -> None:
        calls.append(key)
        if len(calls) == 3:
            raise StoreFull(28, "no room")
        put(self, key, draw)

    monkeypatch.setattr(TrajectoryCache, "put", full)
    with pytest.raises(StoreFull, match="no room"):
        method.fit(model, Erasure(("cat",)), checkpoint=checkpoint)
    assert checkpoint.exists()
    steps: list[int] = []
    edit = method.fit(model, Erasure(("cat",)), checkpoint=checkpoint, progress=lambda i, n, **_: steps.append(i))
    assert steps == [4, 5, 6]
    assert all(torch.equal(value, edit.values[name]) for name, value in whole.values.items())
    assert not Path(checkpoint).exists()


def test_settings_of_a_source_are_the_methods(eps_model):
    source = trainer_of(ESD(**{**QUICK, "refresh": 7}), eps_model).terms[0].source
    assert isinstance(source, Frozen)
    assert (source.steps, source.paths, source.refresh) == (3, 2, asdict(ESD(**{**QUICK, "refresh": 7}))["refresh"])
