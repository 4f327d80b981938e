"""Every method on a stand-in for a GPU, in each dtype: what fp32 gives on a CPU to rounding, and seldom a wait."""

from __future__ import annotations

from typing import Any

import pytest
from on_fake_cuda import needs_compiler, run_script
from tiny_pair import DTYPES

from monte_carlo import compute_bound
from precise_results import HALF
from tiny_fits import list_served

pytestmark = needs_compiler
NAMES = (*list_served("sd"), "esd student")
MOST_WAITS = 2
"""Of the host for the device, in an update."""
DRAWS = ("age", "advunlearn")
"""Methods that draw trajectories of further words in the midst of their steps; each such drawing waits four times."""
IN_HALF = ("esd", "eap", "salun", "erasediff", "spm", "mace")
"""Those whose whole fit is made in half precision too; of all others the first gradient, or the solution, is."""
SIGNS = ("stereo",)
"""Its values went through Adam, so by signs of gradients, of which some are a matter of rounding: that share grows with
the roundoff, and the distance with its root."""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return run_script("methods")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("negative", "safree", "sld")])
def test_a_method_finds_what_fp32_finds_on_a_cpu_as_far_as_rounding_lets_it(name: str, found: dict[str, Any]) -> None:
    result = found[name]
    assert "error" not in result, result["error"]
    for dtype, cast in DTYPES.items():
        most = compute_bound(result["simulated"], HALF, cast, 0.5 if name in SIGNS else 1)
        assert result["far"][dtype] <= most, (dtype, most, result["far"])


FITS = [*((name, "fp32") for name in NAMES), *((name, dtype) for name in IN_HALF for dtype in ("fp16", "bf16"))]


@pytest.mark.parametrize(("name", "dtype"), FITS)
def test_an_edit_is_finite_and_an_update_waits_twice_at_most(name: str, dtype: str, found: dict[str, Any]) -> None:
    assert "error" not in found[name], found[name]["error"]
    result = found[name][dtype]
    assert result["finite"]
    if dtype == "fp16" and name in ("esd", "eap", "salun"):
        assert result["skipped"] == 0  # counted, and none overflowed
    if name in DRAWS:
        assert max(result["waits"], default=0) <= MOST_WAITS + 4 * 4, result
        return
    waits = sorted(result["waits"])[: -1 if name == "stereo" else None]  # of stereo, one is between two stages
    assert max(waits, default=0) <= MOST_WAITS, result
