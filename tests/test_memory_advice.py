"""What the library's functions say where a GPU's memory ran out."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import efface
from efface.api.memory import explain_to_command, with_memory_advice
from efface.concept import Erasure
from efface.methods.esd import ESD
from tiny import tiny_model

SAID = "CUDA out of memory. Tried to allocate 2.00 GiB. See documentation for Memory Management"
PUBLIC = {name: getattr(efface, name) for name in efface.__all__ if inspect.isfunction(getattr(efface, name))}
OPENING = {"load"} | {name for name, function in PUBLIC.items() if "model" in inspect.signature(function).parameters}
"""Functions that open a model or work with one."""
ASIDE = {"sweep": "its workers run commands", "play": "its page tells an error of each drawing"}
"""Functions that work with a model in other processes or later."""


def overflow(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError(SAID)


@pytest.mark.parametrize("name", sorted(OPENING - set(ASIDE)))
def test_every_function_with_a_model_has_the_advice(name: str) -> None:
    assert inspect.unwrap(PUBLIC[name]) is not PUBLIC[name]
    assert PUBLIC[name].__name__ == name and PUBLIC[name].__doc__


def test_a_training_that_overflows_names_arguments_that_take_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ESD, "fit", overflow)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        efface.erase(tiny_model(), Erasure(("cat",)), method="esd", progress=False)
    told = str(caught.value)
    assert told.startswith("memory ran out: CUDA out of memory; micro_batch=1 and moments=8 of efface.erase, ")
    assert told.endswith('dtype="bf16" (or "fp16") and offload=True of efface.load take less')
    assert str(caught.value.__cause__) == SAID


def test_a_model_that_does_not_fit_names_arguments_of_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("efface.models.loading.load", overflow)
    for work in (lambda: efface.load("glyphs"), lambda: efface.erase("glyphs", "cat", progress=False)):
        with pytest.raises(torch.OutOfMemoryError, match=r"offload=True of efface\.load take less"):
            work()


def test_the_outer_function_speaks_and_the_command_line_names_flags() -> None:
    """What works inside another function has arguments that its caller can't give."""

    @with_memory_advice
    def erase() -> None:
        overflow()

    @with_memory_advice
    def takedown() -> None:
        erase()

    with pytest.raises(torch.OutOfMemoryError) as caught:
        takedown()
    assert "micro_batch" not in str(caught.value) and str(caught.value.__cause__) == SAID
    told = str(explain_to_command("takedown", caught.value))
    assert told == "memory ran out: CUDA out of memory; --dtype bf16 (or fp16) and --offload take less"


def test_other_errors_and_answers_are_left_as_they_are() -> None:
    @with_memory_advice
    def answer(error: Exception | None) -> int:
        if error:
            raise error
        return 3

    assert answer(None) == 3
    for error in (RuntimeError("else"), ValueError("else")):
        with pytest.raises(type(error)) as caught:
            answer(error)
        assert caught.value is error
