"""Checks an Edit's file: numbers that can be weights, metadata of the right types, and digests of both.

The metadata of a file holds under `digests` a BLAKE2b digest of each tensor (dtype, shape and bytes), and under
`digest` one of these and of all other metadata. A file with only one of the two is damaged; a file with neither was
written by an earlier version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..plurals import write_count
from .deltas import group_parts

GUIDE = "guide/"
"""The prefix of the keys of a guide's own tensors."""
WHOLE, EACH = "digest", "digests"
TEXTS = ("method", "model", "compute")
TABLES = ("arguments", "request", "base", "versions", "notes", "cost", "guide")
JSON_NAMES = {dict: "a table", list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def add_digests(values: Mapping[str, Tensor], meta: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metadata in JSON's types with the digests of the tensors and of the metadata."""
    plain = json.loads(json.dumps({k: v for k, v in meta.items() if k not in (WHOLE, EACH)}))
    each = {name: digest_tensor(value) for name, value in sorted(values.items())}
    return {**plain, EACH: each, WHOLE: _digest_record(plain, each)}


def take_digests(values: Mapping[str, Tensor], meta: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Checks a file's digests; returns its metadata without them, and whether it had any.

    Raises:
        ValueError: the tensors or the metadata are not those that were saved; the message says which.
    """
    plain = {k: v for k, v in meta.items() if k not in (WHOLE, EACH)}
    if WHOLE not in meta and EACH not in meta:
        return plain, False
    each, whole = meta.get(EACH), meta.get(WHOLE)
    if not isinstance(each, dict) or not isinstance(whole, str):
        raise ValueError("is damaged: its digest is incomplete; copy it again, or erase again")
    if strange := sorted(set(each) ^ set(values)):
        raise ValueError(
            f"is damaged: it was saved with other tensors ({strange[0]!r} is in the file or in its digest, not in both)"
            "; copy it again, or erase again"
        )
    if changed := [name for name, value in sorted(values.items()) if digest_tensor(value) != each[name]]:
        raise ValueError(
            f"is damaged: {changed[0]!r} is not as it was saved ({len(changed)} of "
            f"{write_count(len(values), 'tensor')} differ from "
            "their digests); copy it again, or erase again"
        )
    if _digest_record(plain, each) != whole:
        raise ValueError("is damaged: its metadata is not as it was saved; copy it again, or erase again")
    return plain, True


def digest_tensor(tensor: Tensor) -> str:
    """The BLAKE2b digest of a tensor's dtype, shape and bytes: 32 hexadecimal digits."""
    plain = tensor.detach().cpu().contiguous()
    found = hashlib.blake2b(f"{plain.dtype} {tuple(plain.shape)} ".encode(), digest_size=16)
    found.update(plain.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_values(values: Mapping[str, Tensor], has_guide: bool) -> None:
    """Checks that tensors can be changes of weights, or a guide's own tensors.

    Raises:
        ValueError: there are no tensors and no guide, a key or a dtype can't be a weight's, or numbers are NaN or
            infinite; the message names the key.
    """
    if not values and not has_guide:
        raise ValueError("holds no tensors and no guide: it would change nothing; erase again")
    group_parts({key: value for key, value in values.items() if not key.startswith(GUIDE)})
    for key, value in values.items():
        is_mask = key.endswith(":mask") and not key.startswith(GUIDE)
        if is_mask != (value.dtype == torch.uint8) or not (is_mask or value.is_floating_point()):
            wanted = "packed bits (uint8)" if is_mask else "floating-point numbers"
            found = str(value.dtype).removeprefix("torch.")
            raise ValueError(f"holds {key!r} as {found}, where {wanted} belong")
        if not is_mask and (lost := value.numel() - int(value.isfinite().sum())):
            raise ValueError(
                f"holds NaN or infinite numbers: {lost} of {value.numel()} in {key!r}; a model with them draws "
                "nothing, so erase again, for example with a smaller learning rate"
            )


def check_meta(meta: Mapping[str, Any]) -> None:
    """Checks the types of an edit's metadata; entries may be missing.

    Raises:
        ValueError: an entry has another type; the message says which type it has, and which it should have.
    """
    for key in TEXTS:
        _require(meta, key, str)
    for key in TABLES:
        _require(meta, key, dict)
    for key in ("base", "versions"):
        for name, value in meta.get(key, {}).items():
            _refuse(f"{key}.{name}", value, "a text") if not isinstance(value, str) else None
    for name, value in meta.get("cost", {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            _refuse(f"cost.{name}", value, "a number")
    request = meta.get("request", {})
    for key in ("targets", "keep"):
        _require(request, key, list, "request.")
        if strange := [word for word in request.get(key, ()) if not isinstance(word, str)]:
            _refuse(f"request.{key}", strange[0], "a list of texts")
    _require(request, "anchor", str, "request.")
    if "guide" in meta:
        guide = {"name": None, "arguments": None, **meta["guide"]}
        _require(guide, "name", str, "guide.")
        _require(guide, "arguments", dict, "guide.")


def _require(table: Mapping[str, Any], key: str, kind: type, within: str = "") -> None:
    if key in table and not isinstance(table[key], kind):
        _refuse(f"{within}{key}", table[key], JSON_NAMES[kind])


def _refuse(name: str, value: Any, wanted: str) -> None:
    found = JSON_NAMES.get(type(value), "a number")
    raise ValueError(f"has metadata of the wrong type: {name} is {found}, where {wanted} belongs")


def _digest_record(plain: Mapping[str, Any], each: Mapping[str, str]) -> str:
    text = json.dumps([plain, each], sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
