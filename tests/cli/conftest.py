"""What tests of the command line share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from efface.models.trajectory import Defaults


@pytest.fixture(scope="module")
def few_steps() -> Iterator[None]:
    """A folder's default of 50 sampling steps is more than a test has time for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("efface.models.adapters.sd.Defaults", lambda: Defaults(steps=2, guidance=2.0))
        yield
