"""What the tests of terms need: a context whose update is prepared, and a step of two rows."""

from __future__ import annotations

from typing import Any

import torch

from efface.concept import Erasure
from efface.training.config import TrainConfig
from efface.training.interfaces import Context, Step
from efface.training.updates.dense import Dense


def build_context(model: Any, erasure: Erasure, selection: str = "xattn", batch: int = 2, lr: float = 1e-3) -> Context:
    update = Dense(selection, lr)
    config = TrainConfig(steps=1, batch=batch, draw_steps=4, templates=("{}", "a {}"))
    context = Context(model, erasure, config, update, model.encode([""]), method="the test")
    update.prepare(context)
    return context


def build_step(context: Context, learner: Any = None, seed: int = 0) -> Step:
    """A step whose rows are of the first and the second target."""
    rng = torch.Generator().manual_seed(seed)
    return Step(0, learner or context.update, rng, [0, 1], [1, 0], [0, 1], [0, 1])
