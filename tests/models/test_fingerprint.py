"""The fingerprint of weights: what it is made of, in pieces or not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from efface.models import fingerprint
from efface.models.fingerprint import CASTS, compute_digests, read_in_pieces


def hash_whole(weights: Mapping[str, Tensor], dtype: torch.dtype) -> str:
    """BLAKE2b of each name, shape and the bytes of its whole tensor, in the order of names."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        tensor = weights[name].to(dtype).contiguous().flatten().view(torch.uint8)
        digest.update(f"{name}{tuple(weights[name].shape)}".encode() + bytes(tensor.tolist()))
    return digest.hexdigest()


@pytest.mark.parametrize("piece", [1, 7, 64, 10_000])
def test_pieces_of_any_size_give_the_digest_of_whole_weights(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "PIECE", piece)
    rng = torch.Generator().manual_seed(0)
    weights = {
        "b": torch.randn(3, 4, 3, 3, generator=rng).to(memory_format=torch.channels_last),
        "a": torch.randn(5, 11, generator=rng).half(),
        "c": torch.randn(6, 5, generator=rng).T,
        "d": torch.tensor(2.0),
        "e": torch.zeros(0, 4),
    }
    assert compute_digests(weights) == {name: hash_whole(weights, dtype) for name, dtype in CASTS.items()}


def test_no_piece_is_longer_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "PIECE", 10)
    for weight in (torch.arange(120.0), torch.arange(120.0).view(2, 60).T, torch.arange(120.0).view(60, 1, 2).mT):
        pieces = list(read_in_pieces(weight))
        assert max(map(len, pieces)) <= 10
        assert torch.equal(torch.cat(pieces), weight.flatten())


def test_a_damaged_number_is_counted_in_whichever_piece_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "PIECE", 4)
    weight = torch.zeros(12)
    weight[1], weight[10] = float("nan"), float("inf")
    with pytest.raises(ValueError, match=r"'w' holds NaN or infinite numbers \(2 of 12\)"):
        compute_digests({"w": weight})
