"""The digests and the checks of an Edit's file by themselves, beside a second computation of the digests."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from efface.edits.integrity import add_digests, check_meta, check_values, digest_tensor, take_digests

META: dict[str, Any] = {"request": {"targets": ["chat noir à poils"]}, "method": "ESD", "cost": {"seconds": 2}}
VALUES = {"b": torch.tensor([1.0, -2.0]), "a": torch.tensor([[3]], dtype=torch.uint8)}


def hash_with_blake(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def test_digests_are_blake2b_of_dtype_shape_and_bytes_and_of_the_metadata() -> None:
    """Files that were written earlier are checked by the same digests."""
    each = {
        "a": hash_with_blake(b"torch.uint8 (1, 1) \x03"),
        "b": hash_with_blake(b"torch.float32 (2,) " + np.float32([1, -2]).tobytes()),
    }
    assert {name: digest_tensor(value) for name, value in VALUES.items()} == each
    made = add_digests(VALUES, META)
    assert made == {
        **META,
        "digests": each,
        "digest": hash_with_blake(json.dumps([META, each], sort_keys=True).encode()),
    }
    assert add_digests(VALUES, {**made, "digest": "of another file"}) == made
    assert take_digests(VALUES, made) == (META, True) and take_digests(VALUES, META) == (META, False)


def test_a_tensor_that_is_not_contiguous_has_the_digest_of_its_values() -> None:
    square = torch.arange(6.0).reshape(2, 3)
    assert digest_tensor(square.t()) == digest_tensor(square.t().contiguous()) != digest_tensor(square)


@pytest.mark.parametrize("change", [{"digest": None}, {"digests": None}, {"digest": 3}, {"digests": []}])
def test_half_a_digest_is_damage(change: dict[str, Any]) -> None:
    made = add_digests(VALUES, META)
    for damaged in ({**made, **change}, {key: value for key, value in made.items() if key not in change}):
        with pytest.raises(ValueError, match="is damaged: its digest is incomplete"):
            take_digests(VALUES, damaged)


def test_only_the_tensors_that_were_changed_are_counted() -> None:
    made = add_digests(VALUES, META)
    with pytest.raises(ValueError, match=r"'b' is not as it was saved \(1 of 2 tensors differ"):
        take_digests({**VALUES, "b": torch.zeros(2)}, made)
    for values in ({**VALUES, "c": torch.zeros(1)}, {"b": VALUES["b"]}):
        with pytest.raises(ValueError, match="it was saved with other tensors"):
            take_digests(values, made)


BITS = torch.ones(1, dtype=torch.uint8)
NUMBERS = torch.ones(2)


@pytest.mark.parametrize(
    "values",
    [{"w": NUMBERS}, {"w:mask": BITS}, {"w:mask": BITS, "w:fill": NUMBERS}, {"guide/up:up": NUMBERS}],
)
def test_weights_masks_and_a_guides_own_tensors_can_be_values(values: dict[str, Tensor]) -> None:
    check_values(values, has_guide=True)
    check_values(values, has_guide=False)
    check_values({}, has_guide=True)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "holds no tensors and no guide"),
        ({"w:up": NUMBERS}, "'w:up' make no change of a weight"),
        ({"w:mask": NUMBERS}, r"'w:mask' as float32, where packed bits \(uint8\) belong"),
        ({"w": BITS}, "'w' as uint8, where floating-point numbers belong"),
        ({"w": NUMBERS.long()}, "'w' as int64, where floating-point numbers belong"),
        ({"guide/x:mask": BITS}, "'guide/x:mask' as uint8, where floating-point numbers belong"),
        ({"guide/x": NUMBERS / 0}, "NaN or infinite numbers: 2 of 2 in 'guide/x'"),
    ],
)
def test_other_tensors_are_refused(values: dict[str, Tensor], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_values(values, has_guide=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cost": {"seconds": True}}, "cost.seconds is true or false, where a number"),
        ({"request": {"keep": ["dog", None]}}, "request.keep is null, where a list of texts"),
        ({"request": {"keep": "dog"}}, "request.keep is a text, where a list"),
        ({"versions": {"torch": 2}}, "versions.torch is a number, where a text"),
        ({"model": 1.5}, "model is a number, where a text"),
        ({"compute": {}}, "compute is a table, where a text"),
    ],
)
def test_other_types_in_the_metadata_are_refused(change: dict[str, Any], says: str) -> None:
    check_meta({})
    check_meta({**META, "guide": {"name": "negative", "arguments": {}}})
    with pytest.raises(ValueError, match=f"has metadata of the wrong type: {says}"):
        check_meta({**META, **change})
