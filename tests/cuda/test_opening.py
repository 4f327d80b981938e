"""Models on a stand-in for a GPU: what opens, in which dtype by default, and what `deterministic` sets."""

from __future__ import annotations

from typing import Any

import pytest
from on_fake_cuda import needs_compiler, run_script

pytestmark = needs_compiler


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return run_script("opening")


def test_pipelines_in_memory_open_in_their_own_dtype_and_are_not_taken_for_quantized(found: dict[str, Any]) -> None:
    dtypes = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
    wanted = {f"{size} {name}": f"cuda:0 {dtype}" for size in ("sd", "sdxl") for name, dtype in dtypes.items()}
    assert found["opened"] == wanted


def test_the_default_dtype_is_that_of_the_named_device_and_masters_are_in_fp32(found: dict[str, Any]) -> None:
    assert found["defaults"] == {
        "cuda": {"weights": "torch.bfloat16", "learning": ["torch.float32"]},
        "cuda:0": {"weights": "torch.float16", "learning": ["torch.float32"]},
    }


def test_deterministic_allows_only_kernels_that_give_the_same_bits(found: dict[str, Any]) -> None:
    """And without it nothing is set: some of these kernels are slower."""
    assert found["plain"] == {"algorithms": False, "benchmark": True, "workspace": None}
    assert found["deterministic"] == {"algorithms": True, "benchmark": False, "workspace": ":4096:8"}
