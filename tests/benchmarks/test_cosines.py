"""The benchmark of fp16's gradients: what it counts, and that the factor before the loss saves small ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.cosines import Cosines, build_unet, compare


def test_what_is_lost_is_counted() -> None:
    right = [torch.tensor([3.0, 4.0]), torch.tensor([[1.0]]), torch.zeros(2)]
    same = compare(right, right)
    assert same.cosine == pytest.approx(1) and (same.lost_numbers, same.lost_tensors, same.tensors) == (0, 0, 2)
    found = compare([torch.tensor([3.0, 0.0]), torch.zeros(1, 1), torch.zeros(2)], right)
    assert found.cosine == pytest.approx(3 / 26**0.5)
    assert found.lost_numbers == pytest.approx(2 / 3) and found.lost_tensors == 1


def test_the_error_of_the_prediction_is_as_large_as_asked() -> None:
    """The loss is the square of the error, so its gradient for the output's bias follows from the error alone."""
    made, unet = Cosines(side=8, channels=4), build_unet(8, 4)
    rng = torch.Generator().manual_seed(0)
    off = [torch.randn(1, 4, 8, 8, generator=rng) for _ in range(2)][1]
    off = off / off.square().mean().sqrt()
    names = [name for name, _ in unet.named_parameters()]
    for error in (0.01, 0.1):
        grads = dict(zip(names, made.differentiate(unet, error, 1.0), strict=True))
        assert torch.allclose(grads["conv_out.bias"], -2 * error * off.mean((0, 2, 3)) / 4, rtol=1e-4)


def test_the_factor_saves_what_fp16_rounds_to_zero(tmp_path: Path) -> None:
    """Errors are smaller than in the published table, because these latents have fewer numbers."""
    Cosines(errors=(1e-4,), side=16, channels=4, networks=1, out=tmp_path).run()
    plain, scaled = json.loads((tmp_path / "cosines.json").read_text(encoding="utf-8"))["rows"]
    assert (plain["factor"], scaled["factor"]) == (1, 4096)
    assert plain["least cosine"] < 0.99 < 0.999 < scaled["least cosine"]
    assert plain["tensors lost"] > 0 == scaled["tensors lost"]
    assert plain["numbers lost, %"] > 1 > scaled["numbers lost, %"]
