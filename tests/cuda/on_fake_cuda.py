"""Runs the scripts of this folder on the stand-in for a GPU, for the tests beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fake_cuda.build import find_compiler, run_on_fake_cuda

COMPILER = find_compiler()
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler to build the stand-in for a GPU with")


def run_script(name: str, *flags: str) -> Any:
    """What `NAME_script.py` prints as JSON in its last line."""
    script = Path(__file__).parent / f"{name}_script.py"
    return json.loads(run_on_fake_cuda(str(COMPILER), script, *flags).splitlines()[-1])
