"""Flags that change speed and memory, and nothing else; and how soon the command line answers."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import torch
from diffusers import UNet2DConditionModel

import efface
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.methods.esd import ESD
from efface.models import devices
from efface.models import offload as placement
from efface.models.adapters.sd import StableDiffusion
from efface.models.cond import Cond
from efface.planning.tracker import AllocationTracker
from efface.training.optim import Adam32bit
from tiny import tiny_model, tiny_pipeline
from tiny_sdxl import tiny_sdxl

QUICK = {"steps": 2, "batch": 2, "draw_steps": 3, "lr": 1e-3, "paths": 2, "source": "frozen", "weights": "noxattn"}
ANSWERS = {
    "--help": (["-m", "efface", "--help"], 0.5),
    "list": (["-m", "efface", "list", "methods"], 0.5),
    "list scorers": (["-m", "efface", "list", "scorers", "--json"], 0.5),
    "list suites": (["-m", "efface", "list", "suites"], 0.5),
    "list models": (["-m", "efface", "list", "models"], 0.5),
    "import": (["-c", "import efface"], 0.2),
}


WORK, AT_REST = ["-c", "sum(i * i for i in range(3_000_000))"], 0.25
"""Plain work, and the seconds of processor time that the machine of docs/performance.md takes for it at rest."""


def measure_time(command: list[str]) -> float:
    """Seconds of processor time, the best of three, which waiting for a core does not stretch."""
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


@pytest.mark.parametrize("what", ANSWERS)
def test_it_answers_at_once(what):
    """On a core that is slower, or shares its silicon with a busy one, by as much as plain work there is slower."""
    command, limit = ANSWERS[what]
    assert measure_time(command) < limit * max(1.0, measure_time(WORK) / AT_REST)


def compute_gradients(model, micro: int = 0) -> list[torch.Tensor]:
    """Those of one step."""
    trainer = ESD(**QUICK, micro_batch=micro).build_trainer(model, Erasure(("cat",)))
    found: list[torch.Tensor] = []
    trainer.update.step = found.extend  # type: ignore[method-assign]
    trainer.good = Edit({}, {})  # none is made at the second step, whose bytes would be among those of the passes
    trainer.step(trainer.make_auxiliary_step(1, stream=0))
    return found


def close(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    most = max(float(tensor.abs().max()) for tensor in one)
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-5 * most) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("make", [tiny_model, tiny_sdxl])
def test_checkpointing_saves_memory_at_the_same_gradients(make):
    model = make()
    plain, peaks = compute_gradients(model), []
    for checkpointing in (False, True):
        if checkpointing:
            model.unet.enable_gradient_checkpointing()
        with AllocationTracker(model.weights.values()) as tally:
            found = compute_gradients(model)
        peaks.append(tally.peak)
        assert close(plain, found)
    assert peaks[1] < peaks[0]


def test_a_last_batch_is_filled_up_to_one_that_was_seen():
    x, t, cond = torch.arange(3.0)[:, None], torch.arange(3), Cond({"clip": torch.arange(3.0)})
    seen: set[int] = {16, 5}
    wide, times, conds = placement.pad_rows(x, t, cond, seen)
    assert wide[:, 0].tolist() == times.tolist() == conds.tokens.tolist() == [0, 1, 2, 2, 2]
    assert placement.pad_rows(x[:1], t[:1], cond[:1], seen)[0].shape == (1, 1)
    assert seen == {16, 5, 1}
    assert len(placement.pad_rows(torch.zeros(9, 1), torch.zeros(9), Cond({"a": torch.zeros(9)}), seen)[0]) == 16


def test_parked_parts_come_for_a_call_and_go_back(monkeypatch):
    """Without a GPU the journey is written down instead."""
    model = tiny_model()
    expected = model.encode(["a cat"]).tokens, model.images(["a cat"], [1], steps=2)
    places: list[tuple[str, str]] = []

    def moved(self, place):
        places.append((type(self).__name__, str(place)))
        return self

    fresh = tiny_model()
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "to", moved)
        placement.prepare(
            fresh.pipeline,
            fresh.unet,
            "cuda:7",
            checkpointing=False,
            compile=False,
            offload=True,
            channels_last=False,
        )
        assert places == [("CLIPTextModel", "cpu"), ("AutoencoderKL", "cpu")]
        places.clear()
        assert torch.equal(fresh.encode(["a cat"]).tokens, expected[0])
        assert places == [("CLIPTextModel", "cuda:7"), ("CLIPTextModel", "cpu")]
        places.clear()
        assert torch.equal(fresh.images(["a cat"], [1], steps=2), expected[1])
        assert places[-2:] == [("AutoencoderKL", "cuda:7"), ("AutoencoderKL", "cpu")]


def test_what_the_machine_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA GPU here; give --device cpu"):
        efface.load("glyphs", "cuda")
    with pytest.raises(ValueError, match="while a GPU works; there is none"):
        efface.load(tiny_pipeline(), "cpu", offload=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="there are 2 GPUs"):
        devices.check_device("cuda:2")
    with pytest.raises(ValueError, match=r"'mps' is not supported: .* fp64.* give --device cpu or cuda"):
        devices.check_device("mps")


def test_whether_a_gpu_computes_in_bf16_is_asked_of_that_gpu(monkeypatch):
    """The first of two GPUs is the newer one; bf16 that an older one emulates is not what it computes in."""
    newer = {"cuda": (9, 0), "cuda:0": (9, 0), "cuda:1": (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: newer[str(device)])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Old GPU")
    devices.check_bf16("cuda:0")
    with pytest.raises(ValueError, match="Old GPU does not compute in bf16; give --compute own"):
        devices.check_bf16("cuda:1")
    assert efface.models.loading._choose_compute("auto", "cuda:1") is None
    assert efface.models.loading._choose_compute("auto", "cuda:0") == torch.bfloat16
    assert [devices.choose_dtype(each) for each in ("cpu", "cuda:0", "cuda:1")] == [None, "bf16", "fp16"]


def test_the_bound_of_what_is_recorded_is_the_callers(tmp_path):
    assert efface.load(tiny_pipeline(), "cpu").recordings.bound == 2 << 30
    assert efface.load(tiny_pipeline(), "cpu", store_bound=0).recordings.bound == 0
    kept = efface.load(tiny_pipeline(), "cpu", store=tmp_path, store_bound=7).recordings
    assert (kept.folder, kept.bound) == (tmp_path, 7)


@pytest.mark.parametrize("renewed_every", [50, 1])
def test_there_is_one_copy_of_the_weights(renewed_every, monkeypatch):
    """Beside the base's tensors, which stay in place, lie masters, two moments, gradients and one last good state."""
    monkeypatch.setattr("efface.training.trainer.SAVE_EVERY", renewed_every)
    pipeline = tiny_pipeline()
    config = {**pipeline.unet.config, "block_out_channels": (64, 128), "attention_head_dim": 8}
    pipeline.unet = UNet2DConditionModel.from_config(config)  # so wide that one row's activations are little beside it
    model = StableDiffusion(pipeline, "wide")
    before = model.weights
    unet = sum(tensor.nbytes for name, tensor in before.items() if name.startswith("unet."))
    method = ESD(**{**QUICK, "weights": "full", "batch": 1, "draw_steps": 2, "paths": 1})
    with AllocationTracker(before.values()) as tally:
        method.fit(model, Erasure(("cat",)))
    assert all(model.weights[name] is tensor for name, tensor in before.items())
    assert 5 * unet < tally.peak < 5.5 * unet  # a deep copy of the network would make it six


def test_adam_is_fused_on_a_gpu_alone():
    """The fused step rounds otherwise; on a CPU results stay what they were."""
    adam = Adam32bit([torch.zeros(3, requires_grad=True)], 1e-3)
    assert not adam.inner.defaults["fused"]


def test_weights_are_cast_once_a_drawing_and_no_otherwise(monkeypatch):
    """What is kept of a cast while all steps are taken is what each would have made anew."""
    model = tiny_model()
    model.compute = torch.bfloat16
    kept, plain = model.images(["a cat"], [1], steps=3), torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda *how: plain(*how, cache_enabled=False))
    assert torch.equal(model.images(["a cat"], [1], steps=3), kept)
