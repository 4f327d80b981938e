"""The playground on a stand-in for a GPU, in each dtype: the CPU's pictures to rounding, and exactly the library's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_pair import DTYPES

from fake_cuda.build import find_compiler, run_on_fake_cuda
from monte_carlo import compute_bound
from precise_results import HALF

COMPILER = find_compiler()
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler to build the stand-in for a GPU with")
SCRIPT = Path(__file__).parent / "playground_script.py"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return json.loads(run_on_fake_cuda(str(COMPILER), SCRIPT).splitlines()[-1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_draws_what_the_cpu_draws_as_far_as_rounding_lets_it(dtype: str, found: dict[str, Any]) -> None:
    """Within the bound, a picture under the edit can't be taken for one without it."""
    result = found[dtype]
    assert "error" not in result, result["error"]
    most = compute_bound(found["simulated"], HALF, DTYPES[dtype])
    assert result["far"] <= most < found["edit moves"], (most, found)


@pytest.mark.parametrize("dtype", DTYPES)
def test_its_pictures_are_those_of_the_library_and_its_judges_work_on_the_device(
    dtype: str, found: dict[str, Any]
) -> None:
    result = found[dtype]
    assert "error" not in result, result["error"]
    assert result["far from the library"] == 0
    assert result["prompts"] == found["prompts"] and len(result["prompts"]) == 2
    assert result["judged"] and result["judged on"] == "cuda:0"
