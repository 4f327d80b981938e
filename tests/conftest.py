"""Fixtures: tiny random models, one thread; a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; a test that asks for one is skipped where playwright or Chromium is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((p for n in names if (p := shutil.which(n))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: the page was not tried in a browser")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()
