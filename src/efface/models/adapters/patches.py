"""Latent pictures as a sequence of 2 x 2 patches, as FLUX and Qwen-Image read them."""

from __future__ import annotations

from torch import Tensor


def pack_patches(x: Tensor) -> Tensor:
    """Cuts pictures [n, c, h, w] into patches [n, h / 2 * w / 2, 4 c], row by row."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, 4 * c)


def unpack_patches(patches: Tensor, height: int) -> Tensor:
    """Joins patches to pictures [n, c, h, w] of this height; the inverse of `pack_patches`."""
    n, places, channels = patches.shape
    h, w = height // 2, 2 * places // height
    return (
        patches.reshape(n, h, w, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(n, channels // 4, 2 * h, 2 * w)
    )
