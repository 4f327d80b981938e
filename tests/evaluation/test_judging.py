"""A scorer that fails on one picture: the others keep their scores, and only that one has none."""

from __future__ import annotations

from typing import Any

import torch

from efface.evaluation.judging import score_safely
from efface.scorers.base import Score


class Touchy:
    """Gives each picture's first number, and breaks on a batch that holds a 7."""

    name = "touchy"

    def score(self, images: Any, rows: Any, before: Any) -> list[Score]:
        if (images[:, 0, 0, 0] == 7).any():
            raise ZeroDivisionError("a seven")
        told = zip(images, rows, before, strict=True)
        return [Score(float(image[0, 0, 0]), (row, str(int(base[0, 0, 0])))) for image, row, base in told]


def pictures(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def test_the_others_keep_their_scores() -> None:
    found, failed = score_safely(Touchy(), pictures(1, 7, 3), ["a", "b", "c"], pictures(4, 5, 6))  # type: ignore[arg-type]
    assert failed == 1
    assert [score.value for score in found] == [1.0, None, 3.0]
    assert [score.answer for score in found] == [("a", "4"), (), ("c", "6")]
    assert found[1].explanation == "touchy failed: ZeroDivisionError: a seven"


def test_where_none_fails_they_are_judged_together() -> None:
    found, failed = score_safely(Touchy(), pictures(1, 2), ["a", "b"], pictures(4, 5))  # type: ignore[arg-type]
    assert failed == 0 and [score.value for score in found] == [1.0, 2.0]
