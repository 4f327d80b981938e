"""Fixtures: tiny random models, one thread."""

from __future__ import annotations

import pytest
import torch

from efface.models.adapters.sd import StableDiffusion
from tiny import tiny_model

torch.set_num_threads(1)


@pytest.fixture(params=["epsilon", "v_prediction"])
def model(request: pytest.FixtureRequest) -> StableDiffusion:
    """A tiny random Stable Diffusion; a fresh one for each test, for eps- and for v-prediction."""
    return tiny_model(request.param)


@pytest.fixture
def eps_model() -> StableDiffusion:
    """A tiny random Stable Diffusion that predicts noise."""
    return tiny_model("epsilon")
