"""Changes of low rank: how they start, that they keep their rank, and that they resume."""

from __future__ import annotations

import pytest
import torch

from efface.methods.spm import SPM
from efface.training.preservation.nothing import NoPreservation
from efface.training.updates.lowrank import LowRank
from oracle import build_trainer
from tiny import tiny_model
from update_fixtures import build_small_trainer, edit_of, is_same, play, tiny_trainer


def test_low_rank_starts_as_the_base_and_stays_of_its_rank():
    trainer = build_small_trainer(LowRank("head", 0.1, 2))
    base = trainer.model.weights["unet.head.weight"].detach().clone()
    with trainer.update.swapped_in():
        assert torch.equal(trainer.model.weights["unet.head.weight"], base)
    play(trainer, 6)
    with trainer.update.swapped_in():
        student = trainer.model.weights["unet.head.weight"].detach().clone()
    singular = torch.linalg.svdvals((student - base).double())
    assert singular[1] > 1e-3
    assert singular[2:].max() < 1e-5 * singular[0]
    with edit_of(trainer).apply(trainer.model):
        assert torch.equal(trainer.model.weights["unet.head.weight"], student)


def test_kernels_are_matrices_and_vectors_stay():
    trainer = tiny_trainer(LowRank(r"^unet\.conv_in\.", 0.1, 3))
    assert trainer.update.list_changed_names() == ["unet.conv_in.weight"]
    with torch.no_grad():
        trainer.update.ups[0].normal_(generator=torch.Generator().manual_seed(0))
    base = trainer.model.weights["unet.conv_in.weight"].detach().clone()
    with trainer.update.swapped_in():
        change = (trainer.model.weights["unet.conv_in.weight"] - base).detach().flatten(1)
        student = trainer.model.weights["unet.conv_in.weight"].detach().clone()
    assert torch.linalg.matrix_rank(change.double(), rtol=1e-4) == 3
    with edit_of(trainer).apply(trainer.model):
        assert torch.equal(trainer.model.weights["unet.conv_in.weight"], student)


def test_down_starts_as_spms_adapters_do():
    """Uniform within 1 / sqrt(in), as PyTorch's own linear layers start, which is what the authors' adapters are."""
    model = tiny_model()
    trainer = build_trainer(model, [NoPreservation()], update=SPM().build_update())
    for name, down, up in zip(trainer.update.names, trainer.update.downs, trainer.update.ups, strict=True):
        wide = model.weights[name].flatten(1).shape[1]
        assert down.abs().max() <= wide**-0.5 and not up.any()
    every = torch.cat([down.detach().flatten() * down.shape[1] ** 0.5 for down in trainer.update.downs])
    torch.manual_seed(0)
    theirs = torch.nn.Linear(64, len(every) // 64, bias=False).weight.detach() * 8
    for power in (2, 4):
        assert every.pow(power).mean().item() == pytest.approx(1 / (power + 1), rel=0.05)
        assert theirs.pow(power).mean().item() == pytest.approx(1 / (power + 1), rel=0.05)
    with pytest.raises(ValueError, match="no start 'zero' of low rank; there are normal, uniform"):
        LowRank("head", 0.1, 1, "zero")


def test_bad_ranks():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        LowRank("head", 0.1, 0)
    with pytest.raises(ValueError, match="selects no matrix"):
        tiny_trainer(LowRank(r"^unet\..*\.bias$", 0.1, 2))


def test_low_rank_resumes_exactly():
    trainers = [build_small_trainer(LowRank("head", 0.1, 2)) for _ in range(2)]
    play(trainers[0], 3)
    trainers[1].update.load_state_dict(trainers[0].update.state_dict())
    for trainer in trainers:
        trainer.step(trainer.make_step(3, trainer.update))
    assert is_same(trainers[0].update.compute_deltas(), trainers[1].update.compute_deltas())
