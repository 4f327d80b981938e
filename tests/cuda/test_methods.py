"""Every method on a stand-in for a GPU, in each dtype: the same edit as on a CPU, and seldom a wait for the device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fake_cuda.build import find_compiler, run_on_fake_cuda
from tiny_fits import served

COMPILER = find_compiler()
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler to build the stand-in for a GPU with")
SCRIPT = Path(__file__).parent / "methods_script.py"
NAMES = (*served("sd"), "esd student")
APART = {"fp32": 0.02, "fp16": 0.15, "bf16": 0.4}
"""How far apart two edits may be, as a share of what they moved. Adam's first steps go by the signs of gradients, those
of the smallest are a matter of rounding, and attention is summed in another order. Unrelated edits are 1.4 apart."""
MOST_WAITS = 2
"""Of the host for the device, in an update."""
DRAWS = ("age", "advunlearn")
"""Methods that draw trajectories of further words in the midst of their steps; each such drawing waits four times."""


@pytest.fixture(scope="module", params=["fp32", "fp16", "bf16"])
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"dtype": request.param} | json.loads(
        run_on_fake_cuda(str(COMPILER), SCRIPT, request.param).splitlines()[-1]
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_method_fits_the_edit_that_it_fits_on_a_cpu(name: str, found: dict[str, Any]) -> None:
    result = found[name]
    assert "error" not in result, result["error"]
    assert result["finite"] and result["far"] < APART[found["dtype"]], result
    if found["dtype"] == "fp16" and name in ("esd", "eap", "salun"):
        assert result["skipped"] == 0  # counted, and none overflowed


@pytest.mark.parametrize("name", NAMES)
def test_an_update_waits_twice_at_most_and_no_drawing_step_does(name: str, found: dict[str, Any]) -> None:
    result = found[name]
    if name in DRAWS:
        assert max(result["waits"], default=0) <= MOST_WAITS + 4 * 4, result
        return
    waits = sorted(result["waits"])[: -1 if name == "stereo" else None]  # of stereo, one is between two stages
    assert max(waits, default=0) <= MOST_WAITS, result
