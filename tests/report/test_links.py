"""Pictures beside a page: links to those of the evaluation, where the disk can."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from efface.reporting.gallery import copy_images


def test_pictures_are_linked_and_copied_only_where_they_can_not_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"a picture")
    copy_images([picture], tmp_path / "linked")
    assert (tmp_path / "linked" / "a.png").samefile(picture)

    def refused(*_: object) -> None:
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", refused)
    copy_images([picture], tmp_path / "copied")
    copied = tmp_path / "copied" / "a.png"
    assert not copied.samefile(picture) and copied.read_bytes() == b"a picture"
