"""What several tests of opening a model share: a tiny Stable Diffusion in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tiny import tiny_pipeline


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "sd"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "sd"))
