"""A fingerprint of a model on a GPU copies each weight once, in pieces, and holds no more than a piece beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fake_cuda.build import find_compiler, run_on_fake_cuda

COMPILER = find_compiler()
SCRIPT = Path(__file__).parent / "fingerprint_script.py"


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler to build the stand-in for a GPU with")
def test_a_fingerprint_reads_each_weight_once_in_pieces() -> None:
    found = json.loads(run_on_fake_cuda(str(COMPILER), SCRIPT).splitlines()[-1])
    assert found["same"] and found["largest weight"] > found["piece"]
    assert found["copied"] == found["bytes"]
    assert found["largest copy"] <= found["piece"]
    assert found["beside the weights"] <= found["piece"]
