"""The fusion of changes against stacked least squares."""

from __future__ import annotations

import numpy as np
import torch

from efface.functional.fusion import fuse


def draw_noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def test_fusion_against_stacked_least_squares():
    base, changes, inputs = (
        draw_noise(3, 5),
        [draw_noise(3, 5, seed=s) for s in (1, 2)],
        [draw_noise(n, 5, seed=n) for n in (4, 9)],
    )
    kept, lamb, preserve = draw_noise(6, 5, seed=3), 0.7, 0.3
    fused = fuse(base, changes, [c.T @ c for c in inputs], kept.T @ kept, lamb, preserve)
    rows = [*inputs, preserve**0.5 * kept, lamb**0.5 * torch.eye(5, dtype=torch.double)]
    answers = [c @ (base + d).T for c, d in zip(inputs, changes, strict=True)]
    answers += [part @ base.T for part in rows[2:]]
    by_hand = np.linalg.lstsq(torch.cat(rows).numpy(), torch.cat(answers).numpy(), rcond=None)[0].T
    assert np.allclose(fused.numpy(), by_hand, atol=1e-10)
    assert torch.equal(fuse(base, [], [], kept.T @ kept, lamb), base)
