"""Asking scorers: a time limit for each call, a heartbeat that names the scorer, and every failure counted."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from efface.evaluation import asking, judging
from efface.evaluation.alarms import find_alarms
from efface.evaluation.asking import ScorerHung, ScorerWatch
from efface.evaluation.drawing import Settings
from efface.evaluation.judging import ScoreTable, count_failures, score_safely
from efface.evaluation.set_metrics import _compute_guarded, _tell
from efface.scorers.base import Better, Score
from efface.suites.spec import Row

ROW = Row("0", "a cat", 0, "target", "erase", "object", "cat", ("cat",))
IMAGES = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 2, 2)
NEVER = threading.Event()


@dataclass(frozen=True)
class Odd:
    """A scorer that fails as it is told on the pictures whose first number is in `on`, and says 1 of all others."""

    on: tuple[int, ...]
    error: type[BaseException] | None = None
    """None: it never answers."""
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "odd"
    unit: ClassVar[str] = "1"
    better: ClassVar[Better] = "higher"
    share: ClassVar[bool] = False
    question: ClassVar[str] = "odd"
    name: str = "odd"

    def identify(self) -> dict[str, str]:
        return {"scorer": "odd"}

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        if any(int(image[0, 0, 0]) in self.on for image in images):
            if self.error:
                raise self.error("of this picture")
            NEVER.wait(60)
        return [Score(1.0) for _ in rows]


def ask(scorer: Odd, watch: ScorerWatch | None = None) -> tuple[list[Score], int]:
    return score_safely(scorer, IMAGES, [ROW] * 4, IMAGES, watch)


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError, RuntimeError, KeyError])
def test_one_picture_that_breaks_a_scorer_is_unscored_with_the_cause_and_the_others_are_scored(error: Any) -> None:
    found, failed = ask(Odd((2,), error))
    assert [s.value for s in found] == [1.0, 1.0, None, 1.0] and failed == 1
    assert found[2].answer == () and found[2].explanation.startswith(f"odd failed: {error.__name__}: ")


def test_a_call_that_hangs_leaves_its_picture_unscored_and_the_others_scored() -> None:
    began = time.monotonic()
    found, failed = ask(Odd((1,)), ScorerWatch(0.1))
    assert [s.value for s in found] == [1.0, None, 1.0, 1.0] and failed == 1
    assert found[1].explanation == "odd failed: ScorerHung: no answer within 0.1 s (--scorer-timeout)"
    assert time.monotonic() - began < 5


def test_a_scorer_that_always_hangs_is_not_asked_for_ever() -> None:
    watch = ScorerWatch(0.05)
    found, failed = ask(Odd((0, 1, 2, 3)), watch)
    assert failed == 4 and [s.value for s in found] == [None] * 4
    assert "no answer within" in found[1].explanation and "not asked again" in found[2].explanation
    began = time.monotonic()
    assert ask(Odd((0,)), watch)[1] == 4
    assert time.monotonic() - began < 0.05
    assert ask(Odd((), name="other"), watch)[1] == 0


def test_the_terminal_hears_which_scorer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "HEARTBEAT", 0.02)
    heard: list[tuple[str, int, int]] = []
    with pytest.raises(ScorerHung):
        ScorerWatch(1.2, lambda *said: heard.append(said)).call("clip", lambda: NEVER.wait(60))
    assert set(heard) <= {("waiting for clip, seconds", passed, 1) for passed in (0, 1)} and len(heard) > 5
    heard.clear()
    assert ScorerWatch(1, lambda *said: heard.append(said)).call("clip", lambda: 3) == 3 and heard == []


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_a_time_limit_is_a_positive_number(limit: float) -> None:
    with pytest.raises(ValueError, match="a number of seconds above 0"):
        Settings(scorer_timeout=limit)
    with pytest.raises(ValueError, match="a number of seconds above 0"):
        ScorerWatch(limit)


def test_an_interruption_goes_through() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ScorerWatch().call("odd", stop)


def test_failures_are_counted_and_raise_an_alarm_that_says_why() -> None:
    scorer = Odd((2,), MemoryError)
    said = ask(scorer)[0]
    fine = [Score(1.0)] * 4
    table = ScoreTable([ROW] * 4, [scorer, dataclasses.replace(scorer, name="fine")], {})
    table = dataclasses.replace(table, scores={v: {"odd": said, "fine": fine} for v in judging.VARIANTS})
    assert count_failures(table) == {"odd": (2, "MemoryError: of this picture")}
    (alarm,) = find_alarms((), {}, count_failures(table))
    assert alarm.name == "a scorer failed"
    assert alarm.raised_when == "odd failed on 2 pictures of base and edited model; first MemoryError: of this picture"
    assert find_alarms((), {}, {}) == ()


def test_features_that_cannot_be_made_are_left_out_with_a_word() -> None:
    @dataclass(frozen=True)
    class Eye:
        name: str = "eye"

        def identify(self) -> dict[str, str]:
            return {}

        def extract_features(self, images: Tensor) -> Tensor:
            if (images[:, 0, 0, 0] == 3).any():
                raise MemoryError
            return images[:, :, 0, 0].float()

    failed: list[Exception] = []
    found = _compute_guarded(Eye(), IMAGES, ScorerWatch(), failed)
    assert sorted(found) == [0, 1, 2] and [type(error) for error in failed] == [MemoryError]
    with pytest.warns(UserWarning, match=r"^eye gave no features of 1 picture; the first: MemoryError: $"):
        _tell(Eye(), failed)
