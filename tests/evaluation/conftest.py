"""What several tests of evaluations share: a tiny model of a tiny world, an edit of it, and a suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from efface.concept import Erasure
from efface.models.adapters.sd import StableDiffusion
from efface.suites import world
from efface.suites.rows import build
from efface.suites.spec import Suite
from efface.suites.world import World
from judging_fixtures import edit_of, world_model, write_world


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    return world_model()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world.load(write_world(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def edit(model: StableDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edit_of(model, tmp_path_factory.mktemp("edit") / "cat.safetensors")


@pytest.fixture(scope="module")
def suite(small: World) -> Suite:
    return build("glyphs-objects", Erasure(("cat",)), small, per_group=12)
