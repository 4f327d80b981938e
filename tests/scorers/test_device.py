"""Where networks that judge work."""

from __future__ import annotations

import pytest
import torch

from efface.scorers import base
from efface.scorers.base import cache_by_device, judge_on, pick_device


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_chosen", [])


def test_judges_work_where_the_model_was_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model on the CPU of a machine with GPUs has its judges there too; of several GPUs they take the model's."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device() == torch.device("cuda")
    judge_on(torch.device("cpu"))
    assert pick_device() == torch.device("cpu")
    judge_on(torch.device("cuda:1"))
    assert pick_device() == torch.device("cuda:1")


def test_a_network_is_loaded_once_for_each_device() -> None:
    loaded: list[str] = []

    @cache_by_device
    def load(folder: str) -> str:
        loaded.append(folder)
        return f"{folder} on {pick_device()}"

    judge_on(torch.device("cpu"))
    assert load("a") == load("a") == "a on cpu"
    judge_on(torch.device("cuda:1"))
    assert load("a") == "a on cuda:1" and loaded == ["a", "a"]


def test_pictures_are_given_to_a_processor_that_says_nothing_of_sizes() -> None:
    """That of timm's networks has neither `do_resize` nor `size`, and always scales."""

    class Inputs(dict[str, list[torch.Tensor]]):
        def to(self, device: torch.device) -> dict[str, list[torch.Tensor]]:
            return {**self, "device": device}  # type: ignore[dict-item]

    pictures = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    given = base.prepare_images(lambda images, return_tensors: Inputs(images=images), pictures)
    assert torch.equal(torch.stack(given["images"]), pictures) and given["device"] == pick_device()
