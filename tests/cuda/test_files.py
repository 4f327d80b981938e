"""Files of other tools on a machine with a GPU, by a stand-in for it."""

from __future__ import annotations

from typing import Any

import pytest
from on_fake_cuda import needs_compiler, run_script

pytestmark = needs_compiler


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return run_script("files")


@pytest.mark.parametrize("base", ["named", "memory"])
def test_edits_are_read_and_combined_beside_a_gpu(base: str, found: dict[str, Any]) -> None:
    """The base may lie on the GPU, and what is compared with it on the CPU; a named base is in fp32 there too."""
    told = found[base]
    one, both = told["weights"], told["weights of both"]
    assert (told["import"], told["import a folder"], told["diff"]) == (one, one, one)
    assert told["merge"] == both and told["revert"] == "True" and told["export"].endswith("x.safetensors")
