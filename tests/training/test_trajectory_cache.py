"""The store of trajectories: memory, files, other bases, and a disk without room."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from efface.concept import Erasure
from efface.methods.eap import EAP
from efface.methods.esd import ESD
from efface.models.trajectory import Draw
from efface.models.trajectory_cache import StoreFull, TrajectoryCache
from tiny import tiny_model

QUICK = {"steps": 3, "batch": 2, "draw_steps": 3, "lr": 1e-3, "paths": 2, "source": "frozen"}


def build_draw(n: int, fill: float = 0.0) -> Draw:
    column = torch.full((3, n, 4, 8, 8), fill) + torch.arange(3.0)[:, None, None, None, None]
    return Draw(torch.full((n, 4, 8, 8), fill), torch.tensor([9.0, 5.0, 1.0]), column, column + 1, column + 2)


@pytest.mark.parametrize("bound", [10_000_000, 0])
@pytest.mark.parametrize("kept", [True, False])
def test_a_row_is_the_same_from_memory_a_spilled_file_or_a_folder(tmp_path, bound, kept):
    recordings = TrajectoryCache(tmp_path if kept else None, bound)
    recordings.put("a", build_draw(1, 7.0))
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
    one = sum(t.nbytes for t in vars(build_draw(1, 0.1)).values())
    recordings = TrajectoryCache(bound=2 * one)
    for name in "abc":
        recordings.put(name, build_draw(1, 0.1))
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
    draw = build_draw(1, 0.1)  # 0.1 is no bf16, and its sums are none
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
    recordings.put("a", build_draw(1))
    file = recordings.spilled["a"].file
    assert file.exists()
    recordings.evict("a")
    assert not file.exists()
    assert "a" not in recordings
    roomy = TrajectoryCache()
    roomy.put("a", build_draw(1))
    used = roomy.used
    roomy.put("a", build_draw(1))
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
