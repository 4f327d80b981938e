"""Which ways a prompt takes into a network, and which an edit leaves open."""

from __future__ import annotations

from typing import Any

import pytest

from efface import methods
from efface.concept import Erasure
from efface.diagnostics.text_paths import find_text_paths, name_open_paths
from efface.models.base import Model
from tiny import tiny_model
from tiny_fits import build_quick
from tiny_flux import tiny_flux
from tiny_sd3 import tiny_sd3
from tiny_sdxl import tiny_sdxl


def list_open_paths(model: Model, weights: str, method: str = "esd", **more: Any) -> list[str]:
    how = {"weights": weights, "steps": 1, "batch": 1} if weights else {}
    edit = build_quick(method, model, **how, **more).fit(model, Erasure(("cat",)))
    return [way.partition(":")[0] for way in name_open_paths(find_text_paths(model, edit))]


@pytest.mark.parametrize("make", [tiny_sd3, tiny_flux])
def test_the_tokens_alone_leave_the_pooled_embedding_open(make: Any) -> None:
    model = make()
    assert list_open_paths(model, "xattn") == ["the pooled embedding"]
    assert list_open_paths(model, "cross,pooled") == [] and list_open_paths(model, "full") == []
    assert list_open_paths(model, "pooled") == ["the prompt's tokens"]
    assert list_open_paths(model, "selfattn") == ["the pooled embedding", "the prompt's tokens"]


def test_a_text_encoder_closes_the_ways_that_come_from_it_alone() -> None:
    sd3 = [list_open_paths(tiny_sd3(), weights) for weights in (r"^text_encoder\.", "text-encoders")]
    assert sd3 == [
        ["the pooled embedding from text_encoder_2", "the prompt's tokens from text_encoder_2 and text_encoder_3"],
        [],
    ]
    assert list_open_paths(tiny_flux(), r"^text_encoder\.") == ["the prompt's tokens"]
    assert list_open_paths(tiny_flux(), r"^text_encoder_2\.") == ["the pooled embedding"]
    assert list_open_paths(tiny_sdxl(), r"^text_encoder\.") == [
        "the pooled embedding",
        "the prompt's tokens from text_encoder_2",
    ]


def test_a_closed_form_on_joint_attention_changes_both_ways() -> None:
    model = tiny_sd3()
    edit = methods.get("uce")().fit(model, Erasure(("cat",), anchor="dog"))
    paths = {path.role: (path.changed, path.weights) for path in find_text_paths(model, edit)}
    assert paths["embedder"] == (1, 1) and paths["pooled"] == (1, 1) and paths["cross"] == (0, 4)
    assert name_open_paths(find_text_paths(model, edit)) == []


def test_one_way_in_and_guides() -> None:
    model = tiny_model()
    assert list_open_paths(model, "xattn") == [] and list_open_paths(model, "selfattn") == ["the prompt's tokens"]
    assert find_text_paths(model, build_quick("negative", model).fit(model, Erasure(("cat",)))) == ()


def test_sdxls_pooled_embedding_is_a_way_in_too() -> None:
    assert list_open_paths(tiny_sdxl(), "xattn") == ["the pooled embedding"]
