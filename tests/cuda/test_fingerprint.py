"""A fingerprint of a model on a GPU copies each weight once, in pieces, and holds no more than a piece beside them."""

from __future__ import annotations

from on_fake_cuda import needs_compiler, run_script


@needs_compiler
def test_a_fingerprint_reads_each_weight_once_in_pieces() -> None:
    found = run_script("fingerprint")
    assert found["same"] and found["largest weight"] > found["piece"]
    assert found["copied"] == found["bytes"]
    assert found["largest copy"] <= found["piece"]
    assert found["beside the weights"] <= found["piece"]
