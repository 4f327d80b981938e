"""What tests of running attacks share: an edited model of a tiny world, with its suite."""

from __future__ import annotations

import pytest

from efface.concept import Erasure
from efface.suites import world
from efface.suites.rows import build
from judging_fixtures import edit_of, world_model, write_world
from runner_fixtures import Setup


@pytest.fixture(scope="session")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    model, folder = world_model(), tmp_path_factory.mktemp("attacked")
    known = world.load(write_world(folder))
    edit = edit_of(model, folder / "cat.safetensors")
    return Setup(model, edit, build("glyphs-objects", Erasure(("cat",)), known, per_group=12), known)
