"""Erase, evaluate, export, open again and resume on a stand-in for a GPU, by the library's functions, in each dtype."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fake_cuda.build import find_compiler, run_on_fake_cuda

COMPILER = find_compiler()
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler to build the stand-in for a GPU with")
SCRIPT = Path(__file__).parent / "whole_script.py"


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_from_erasing_to_an_exported_model(dtype: str) -> None:
    found = json.loads(run_on_fake_cuda(str(COMPILER), SCRIPT, dtype).splitlines()[-1])
    assert found["planned"] > 0 and found["scored"] and found["peak memory"]
    assert found["resumed"], "a training that was stopped goes on to another edit"
    assert found["judged on"] == "cuda:0"
    assert found["exported, levels apart"] <= (0 if dtype == "fp32" else 2)
