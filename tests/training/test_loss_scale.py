"""The factor before losses whose gradients pass through fp16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import efface
from efface.concept import Erasure
from efface.methods.esd import ESD
from efface.training.diverged import Diverged
from efface.training.loss_scale import CLEAN, LossScale
from efface.training.trainer import Trainer
from tiny import small_pipeline

SHORT = {"steps": 4, "batch": 2, "draw_steps": 2, "paths": 2, "lr": 1e-3, "source": "frozen", "weights": "noxattn"}


def build_trainer(dtype: torch.dtype, **more: object) -> Trainer:
    model = efface.load(small_pipeline().to(dtype=dtype), "cpu")
    return ESD(**{**SHORT, **more}).build_trainer(model, Erasure(("cat",)))


def test_it_is_halved_by_an_overflow_and_doubled_after_clean_steps() -> None:
    scale = LossScale(4096.0)
    assert [scale.accepts(False), scale.accepts(False)] == [False, False]
    assert (scale.factor, scale.skipped) == (1024.0, 2)
    assert all(scale.accepts(True) for _ in range(CLEAN))
    assert scale.factor == 2048.0
    assert all(scale.accepts(True) for _ in range(3 * CLEAN))
    assert scale.factor == 4096.0 and scale.collect_metadata() == {"skipped_steps": 2}
    again = LossScale(4096.0)
    again.load_state_dict(scale.state_dict())
    assert (again.factor, again.clean, again.skipped) == (scale.factor, scale.clean, scale.skipped)
    assert LossScale(1.0).accepts(True) and not LossScale(1.0).accepts(False) and not LossScale(1.0).collect_metadata()


def test_gradients_in_fp16_are_those_of_fp32() -> None:
    """By the cosine with fp32's. With errors as small as late in a training, and no factor, most of it is zero."""
    cosines = {}
    for factor in (1.0, 4096.0):
        flat = []
        for dtype in (torch.float32, torch.float16):
            trainer = build_trainer(dtype)
            trainer.loss_scale.factor = factor if dtype == torch.float16 else 1.0
            _, grads = trainer.compute_gradient(trainer.make_auxiliary_step(0, 0), {"erase": 1e-4})
            assert all(grad.isfinite().all() for grad in grads)
            flat.append(torch.cat([grad.double().flatten() for grad in grads]))
        cosines[factor] = torch.cosine_similarity(*flat, dim=0).item()
    assert cosines[4096.0] > 0.999
    assert cosines[1.0] < 0.99


def test_a_step_that_overflows_is_left_out_and_counted(tmp_path: Path) -> None:
    trainer = build_trainer(torch.float16)
    trainer.loss_scale.factor = trainer.loss_scale.first = 2.0**40
    before = [param.clone() for param in trainer.update.list_optimised()]
    trainer.step(trainer.make_step(0, trainer.update))
    assert trainer.loss_scale.skipped == 1
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.update.list_optimised(), strict=True))
    file = tmp_path / "state.safetensors"
    trainer.save_checkpoint(file, 1)
    assert any(key.endswith("/scale") for key in load_file(file))
    edit = trainer.train()
    assert edit.meta["notes"]["skipped_steps"] > 1 and all(v.isfinite().all() for v in edit.values.values())


def test_a_gradient_that_no_factor_saves_is_a_divergence() -> None:
    trainer = build_trainer(torch.float16)
    trainer.loss_scale.factor = 1.0
    plain = trainer.compute_gradient

    def broken(step, shares):
        losses, grads = plain(step, shares)
        return losses, [grad * float("inf") for grad in grads]

    trainer.compute_gradient = broken  # type: ignore[method-assign]
    with pytest.raises(Diverged, match="gradient, at loss"):
        trainer.step(trainer.make_step(0, trainer.update))


def test_fp32_has_no_factor_and_its_checkpoints_no_state() -> None:
    trainer = build_trainer(torch.float32)
    assert not trainer.loss_scale.active and not trainer.loss_scale.state_dict()
    assert "skipped_steps" not in trainer.build_edit().meta["notes"]
