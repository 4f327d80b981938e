"""The memory plan of a training on a stand-in for a GPU is what the device hands out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fake_cuda.build import find_compiler, run_on_fake_cuda

COMPILER = find_compiler()
SCRIPT = Path(__file__).parent / "plans_script.py"


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler to build the stand-in for a GPU with")
def test_the_plan_is_what_the_device_hands_out() -> None:
    found = json.loads(run_on_fake_cuda(str(COMPILER), SCRIPT).splitlines()[-1])
    for name, row in found.items():
        assert row["planned GB"] == pytest.approx(row["peak GB"], rel=0.1), (name, row)
    assert set(found) == {"esd", "eap", "erasediff"}
