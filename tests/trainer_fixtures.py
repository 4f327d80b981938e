"""Short trainings of ESD and EAP, and single steps of them."""

from __future__ import annotations

from dataclasses import asdict

from efface.concept import Erasure
from efface.methods.eap import EAP
from efface.methods.esd import ESD
from efface.models.adapters.sd import StableDiffusion
from efface.training.interfaces import Step
from efface.training.trainer import Trainer

QUICK = {"steps": 3, "batch": 2, "draw_steps": 3, "lr": 1e-3, "paths": 2}


def build_trainer(method: ESD | EAP, model: StableDiffusion, erasure: Erasure) -> Trainer:
    parts = {
        "terms": method.build_terms(model, erasure),
        "update": method.build_update(),
        "balance": method.build_balance(),
    }
    return Trainer(model, erasure, name="test", arguments=asdict(method), config=method.build_config(), **parts)


def step_of(trainer: Trainer, index: int = 0) -> Step:
    return trainer.make_step(index, trainer.learners[index % len(trainer.learners)])
