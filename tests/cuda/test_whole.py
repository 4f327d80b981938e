"""Erase, evaluate, export, open again and resume on a stand-in for a GPU, by the library's functions, in each dtype."""

from __future__ import annotations

import pytest
from on_fake_cuda import needs_compiler, run_script

pytestmark = needs_compiler


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_from_erasing_to_an_exported_model(dtype: str) -> None:
    found = run_script("whole", dtype)
    assert found["planned"] > 0 and found["scored"] and found["peak memory"]
    assert found["resumed"], "a training that was stopped goes on to another edit"
    assert found["judged on"] == "cuda:0"
    assert found["exported, levels apart"] <= (0 if dtype == "fp32" else 2)
