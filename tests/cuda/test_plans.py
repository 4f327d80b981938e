"""The memory plan of a training on a stand-in for a GPU is what the device hands out."""

from __future__ import annotations

import pytest
from on_fake_cuda import needs_compiler, run_script


@needs_compiler
def test_the_plan_is_what_the_device_hands_out() -> None:
    found = run_script("plans")
    for name, row in found.items():
        assert row["planned GB"] == pytest.approx(row["peak GB"], rel=0.1), (name, row)
    assert set(found) == {"esd", "eap", "erasediff"}
