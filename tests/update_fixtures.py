"""Small trainings of one update, and the edit that each leaves."""

from __future__ import annotations

import torch
from torch import Tensor

from efface.edits.edit import Edit
from efface.training.interfaces import Update
from efface.training.objectives.negative_guidance import NegativeGuidance
from efface.training.preservation.nothing import NoPreservation
from efface.training.trainer import Trainer
from oracle import Fixed, OracleModel, build_stirred, build_trainer
from tiny import tiny_model


def build_small_trainer(update: Update, *more, model: OracleModel | None = None, seed: int = 0) -> Trainer:
    model = model or build_stirred()
    return build_trainer(
        model, [NegativeGuidance(Fixed(model.sample_states(32)), 1.0, "eps"), *more], update=update, batch=32, seed=seed
    )


def play(trainer: Trainer, moves: int) -> None:
    for index in range(moves):
        trainer.step(trainer.make_step(index, trainer.update))


def tiny_trainer(update: Update) -> Trainer:
    """Many real tensors; nothing is predicted."""
    return build_trainer(tiny_model(), [NoPreservation()], update=update)


def edit_of(trainer: Trainer) -> Edit:
    return Edit(trainer.update.compute_deltas(), {"base": trainer.model.fingerprint()})


def is_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(value, two[key]) for key, value in one.items())
