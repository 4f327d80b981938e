"""Text encoders without numbers: they count the bytes of real ones, and what they give is enough to compute with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.text_shapes import give_numbers
from efface.models.adapters.sd import replace_embeddings
from efface.planning.tracker import AllocationTracker

CONFIG = CLIPTextConfig(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    max_position_embeddings=8,
    projection_dim=16,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=2,
)
IDS = torch.tensor([[1, 7, 9, 2, 2, 2, 2, 2], [1, 8, 9, 2, 2, 2, 2, 2], [1, 7, 9, 2, 2, 2, 2, 2]])
KINDS = (CLIPTextModel, CLIPTextModelWithProjection)


def without_numbers(kind: Any) -> Any:
    with FakeTensorMode(allow_non_fake_inputs=True):
        encoder = kind(CONFIG).eval()
    give_numbers(encoder)
    return encoder


def read(encoder: Any) -> tuple[Tensor, Tensor]:
    out = encoder(IDS, output_hidden_states=True)
    return out[0], out.hidden_states[-2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_counts_the_bytes_of_a_real_one(kind: Any) -> None:
    peaks = []
    for encoder in (kind(CONFIG).eval(), without_numbers(kind)):
        with torch.no_grad(), AllocationTracker(encoder.parameters()) as tracker:
            given = read(encoder)
            peaks.append((tracker.peak, [tensor.shape for tensor in given]))
    assert peaks[0] == peaks[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_tokens_have_the_same_numbers_and_others_have_others(kind: Any) -> None:
    with torch.no_grad():
        outputs = read(without_numbers(kind))
    for given in outputs:
        assert not isinstance(given, FakeTensor) and given.isfinite().all()
        assert torch.equal(given[0], given[2]) and not torch.equal(given[0], given[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_reaches_the_token_embeddings_that_are_given(kind: Any) -> None:
    encoder = without_numbers(kind)
    moved = torch.zeros(3, 8, 16, requires_grad=True)
    with replace_embeddings(encoder, moved):
        total = torch.stack([given.square().sum() for given in read(encoder)]).sum()
    (gradient,) = torch.autograd.grad(total, [moved])
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_within_a_mode_of_shapes_nothing_has_numbers() -> None:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        encoder = CLIPTextModel(CONFIG).eval()
    give_numbers(encoder)
    with mode:
        assert all(isinstance(given, FakeTensor) for given in read(encoder))
