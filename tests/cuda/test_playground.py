"""The playground on a stand-in for a GPU, in each dtype: the CPU's pictures to rounding, and exactly the library's."""

from __future__ import annotations

from typing import Any

import pytest
from on_fake_cuda import needs_compiler, run_script
from tiny_pair import DTYPES

from monte_carlo import compute_bound
from precise_results import HALF

pytestmark = needs_compiler


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return run_script("playground")


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
